"""`fleetpulse up`: the whole system on this machine, with simulated replicas or real ones."""

import math
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import anyio
import click
import msgspec
import structlog
from rich.console import Console
from rich.live import Live

from controller.bus import ControlBus, connect
from controller.cli.deployment import read_file
from controller.cli.folders import local_folders
from controller.cli.session import EXIT_BAD, fail, plainly, run, show_one
from controller.db.repository import Repository
from controller.db.session import open_database
from controller.definition.deployment_file import DeploymentFile
from controller.errors import InvalidInput
from controller.provision.fleet.client import FleetClient
from controller.reconcile.together import together
from controller.service import Service
from controller.up.files import Files
from controller.up.janitor import Janitor
from controller.up.sight import Sight, Summary
from controller.up.stack import Runs, Stack
from controller.up.tour import Tour
from controller.up.view import picture
from probe import logs

LOOK_S: Final = 0.5
SAY_S: Final = 5.0
DEFAULT_REPLICAS: Final = 60


def _a_number(ctx: click.Context, param: click.Parameter, value: float | None) -> float | None:
    if value is not None and math.isnan(value):  # neither below nor above any bound
        raise click.BadParameter(f"{value} is not a count of seconds.", ctx, param)
    return value


@click.command()
@click.option(
    "--provisioner",
    "runs",
    type=click.Choice([each.value for each in Runs]),
    default=Runs.SIMULATED.value,
    show_default=True,
    help="What replicas are: simulated, or processes of this machine, as files say.",
)
@click.option(
    "-f",
    "--file",
    "paths",
    multiple=True,
    type=click.Path(path_type=Path, allow_dash=True),
    help="A deployment to run, with --provisioner process; may be repeated.",
)
@click.option(
    "--replicas",
    metavar="N",
    type=click.IntRange(1, 5000),
    help=f"How many, in the simulated fleet.  [default: {DEFAULT_REPLICAS}]",
)
@click.option("--chaos", is_flag=True, help="Kill, hang and flap replicas while it runs.")
@click.option(
    "--for",
    "for_s",
    metavar="SECONDS",
    type=click.FloatRange(1, 31_536_000),
    callback=_a_number,
    help="Stop by itself after so many; else at Ctrl-C.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object.")
def up(
    *,
    runs: str,
    paths: tuple[Path, ...],
    replicas: int | None,
    chaos: bool,
    for_s: float | None,
    as_json: bool,
) -> None:
    """Run bus, replicas, controller and prober until Ctrl-C; nothing is installed or left behind.

    Exits 0 only when all invariants held.
    """
    started = time.monotonic()
    logs.configure()
    with plainly():
        files = _files(Runs(runs), paths, replicas, chaos=chaos)
    show = Show(Runs(runs), files, replicas or DEFAULT_REPLICAS, chaos)
    with ExitStack() as ends:
        directory = _private_directory()
        ends.callback(Janitor(directory).close)
        with plainly():
            stack = Stack(directory, runs=show.runs)
        ends.callback(stack.stop)
        summary = run(lambda: _Run(stack, started, show).until(for_s))
    if as_json:
        click.echo(msgspec.json.encode(summary).decode())
    else:
        show_one(msgspec.structs.asdict(summary), as_json=False)
    if summary.invariant_violations:
        sys.exit(EXIT_BAD)


@dataclass(frozen=True, slots=True)
class Show:
    """What is run."""

    runs: Runs
    files: tuple[DeploymentFile, ...]
    simulated: int
    """How many replicas, in the simulated fleet."""
    chaos: bool

    @property
    def replicas(self) -> int:
        """Return how many replicas are wanted in all."""
        if self.runs is Runs.PROCESS:
            return sum(one.replicas for one in self.files)
        return self.simulated

    def operator(self, verbs: Service, fleet: FleetClient) -> Files | Tour:
        """Return who operates the stack."""
        if self.runs is Runs.PROCESS:
            return Files(verbs, self.files)
        return Tour(verbs, fleet, replicas=self.replicas, chaos=self.chaos)


def _files(
    runs: Runs, paths: tuple[Path, ...], replicas: int | None, *, chaos: bool
) -> tuple[DeploymentFile, ...]:
    """Read the files, when these options can go together."""
    if runs is Runs.SIMULATED and paths:
        raise InvalidInput(
            "-f is for --provisioner process: the simulated fleet brings its own deployments"
        )
    if runs is Runs.PROCESS and not paths:
        raise InvalidInput("--provisioner process needs -f FILE, a deployment to run")
    if runs is Runs.PROCESS and (chaos or replicas is not None):
        raise InvalidInput(
            "--replicas and --chaos are for the simulated fleet: the file says how many replicas, "
            "and `kill -9` is chaos enough"
        )
    return tuple(read_file(path) for path in paths)


def _private_directory() -> Path:
    try:
        return Path(tempfile.mkdtemp(prefix="fleetpulse-"))
    except OSError as error:
        fail(f"no private directory can be made ({error}): set TMPDIR to one", EXIT_BAD)


class _Run:
    """One run of the stack, from start to summary."""

    def __init__(self, stack: Stack, started: float, show: Show) -> None:
        self._stack = stack
        self._started = started
        self._show = show
        self._said_at = float("-inf")

    async def until(self, for_s: float | None) -> Summary:
        """Run until a signal, or for `for_s` seconds since the command began."""
        await self._stack.start()
        database = open_database(self._stack.database_url)
        bus = ControlBus(connect(self._stack.redis_url))
        fleet = FleetClient(self._stack.fleet_socket)
        sight = Sight(self._stack, Repository(database), bus)
        operator = self._show.operator(Service(database, folders=local_folders()), fleet)
        try:
            await operator.begin()
            deadline = float("inf") if for_s is None else self._started + for_s
            async with together() as group:
                group.start_soon(_cancel_on_signal, group.cancel_scope)
                await self._watch(sight, operator, deadline)
                group.cancel_scope.cancel()
            await sight.look()
            return sight.summary(seconds=time.monotonic() - self._started)
        finally:
            with anyio.CancelScope(shield=True):
                await sight.close()
                await fleet.close()
                await bus.aclose()
                await database.close()

    async def _watch(self, sight: Sight, operator: Files | Tour, deadline: float) -> None:
        console = Console(stderr=True)
        with ExitStack() as screen:
            live = Live(console=console, refresh_per_second=4)
            if console.is_terminal:
                screen.enter_context(live)
            while (now := time.monotonic()) < deadline:
                await sight.look()
                for name in self._stack.tend():
                    structlog.get_logger().warning("part_started_again", part=name)
                if sight.snapshot is not None:
                    await operator.go_on(sight.snapshot, now=now, until=deadline)
                summary = sight.summary(seconds=now - self._started)
                if console.is_terminal:
                    live.update(picture(sight.snapshot, summary, heading=self._heading()))
                else:
                    self._say(summary, now)
                await anyio.sleep(max(0.0, min(LOOK_S, deadline - time.monotonic())))

    def _heading(self) -> list[str]:
        stack = self._stack
        return [
            f"prober      {stack.metrics_url('prober')}",
            f"controller  {stack.metrics_url('controller')}",
            f"try         fleetpulse deployment list --database {stack.database_url}",
            f"            fleetpulse status --redis {stack.redis_url}",
            "            Ctrl-C ends everything",
        ]

    def _say(self, summary: Summary, now: float) -> None:
        """Where there is no terminal: a line now and then."""
        if now - self._said_at < SAY_S:
            return
        if self._said_at < 0:
            click.echo("\n".join(self._heading()), err=True)
        self._said_at = now
        click.echo(
            f"{summary.seconds:5.0f} s  {summary.healthy}/{self._show.replicas} healthy  "
            f"{summary.probes} probes  {summary.rollouts} rollouts done",
            err=True,
        )


async def _cancel_on_signal(scope: anyio.CancelScope) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            scope.cancel()
            return
