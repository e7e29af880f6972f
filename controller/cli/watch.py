"""`fleetpulse rollout watch`: follow a rollout until it ends, and say how it did.

A live tree on a terminal, a line or a JSON object for each change elsewhere. Where nobody answers
for a while it says so, and goes on.
"""

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

import anyio
import click
import msgspec

from controller.cli.place import Place, place_options
from controller.cli.session import EXIT_BAD, fail, json_option, run, show_one
from controller.errors import NotFound, Unreachable
from controller.model import Outcome
from controller.rollout.progress import Clock, Progress
from controller.verbs import Verbs

if TYPE_CHECKING:
    from rich.console import RenderableType

WATCH_S: Final = 0.5


@click.command()
@click.argument("name")
@place_options
@json_option
def watch(name: str, place: Place, as_json: bool) -> None:  # noqa: FBT001
    """Follow the rollout in flight, or show how the last one ended; exit 1 unless promoted."""
    follow(name, place, as_json=as_json)


def follow(name: str, place: Place, *, as_json: bool) -> None:
    """Show the newest rollout of a deployment until it has ended; exit 1 unless promoted."""
    screen = _Objects() if as_json else _screen()

    async def work() -> Progress:
        async with place.verbs() as verbs:
            return await _follow(verbs, name, screen)

    try:
        with screen:
            ended = run(work)
    except KeyboardInterrupt:
        again = f"`fleetpulse rollout watch {name}`"
        fail(f"not watching any more; the rollout goes on, {again} follows it", EXIT_BAD)
    show_one(_ending(ended), as_json=as_json)
    if ended.outcome is not Outcome.PROMOTED:
        raise SystemExit(EXIT_BAD)


async def _follow(verbs: Verbs, name: str, screen: "_Screen") -> Progress:
    """Show the rollout in flight until it ends; return how it ended."""
    progress = await verbs.rollout_progress(name)  # away now: a mistyped path; later: an outage
    while progress.outcome is None:
        screen.show(progress)
        progress = await _newer(verbs, name, screen)
    screen.last(progress)
    return progress


async def _newer(verbs: Verbs, name: str, screen: "_Screen") -> Progress:
    """Ask until somebody answers."""
    while True:
        await anyio.sleep(WATCH_S)
        try:
            return await verbs.rollout_progress(name)
        except Unreachable as error:
            screen.away(str(error))
        except NotFound as error:
            raise NotFound(f"{name} went away with its rollout, which was its first") from error


def _ending(progress: Progress) -> dict[str, object]:
    ended_at_ms = progress.ended_at_ms or progress.started_at_ms
    return {
        "rollout": progress.rollout,
        "outcome": progress.outcome and progress.outcome.value,
        "seconds": (ended_at_ms - progress.started_at_ms) / 1000,
        "message": progress.message,
    }


class _Screen(Protocol):
    """Where a rollout is shown."""

    def __enter__(self) -> object: ...
    def __exit__(self, *_: object) -> None: ...

    def show(self, progress: Progress) -> None:
        """Show how far it is."""

    def away(self, why: str) -> None:
        """Say that nobody answers at the moment."""

    def last(self, progress: Progress) -> None:
        """Show how it ended."""


def _screen() -> _Screen:
    return _Tree() if sys.stderr.isatty() else _Lines()


class _Changes:
    """Prints what is new in itself, once."""

    def __init__(self) -> None:
        self._seen: object = None

    def __enter__(self) -> object:
        return self

    def __exit__(self, *_: object) -> None: ...

    def last(self, progress: Progress) -> None:
        """Leave it to the line about the outcome."""

    def _is_new(self, what: object) -> bool:
        known, self._seen = self._seen, what
        return known != what


class _Lines(_Changes):
    """A line for each change, beside the output."""

    def show(self, progress: Progress) -> None:
        """Print where it stands, if that is not what was printed last."""
        self._say(line(progress))

    def away(self, why: str) -> None:
        """Say so, once."""
        self._say(f"waiting: {why}")

    def _say(self, text: str) -> None:
        if self._is_new(text):
            click.echo(text, err=True)


class _Objects(_Changes):
    """A JSON object for each change."""

    def __init__(self) -> None:
        super().__init__()
        self._beside = _Lines()

    def show(self, progress: Progress) -> None:
        """Print all of it, if more has changed than the time."""
        if self._is_new(progress.essence):
            click.echo(msgspec.json.encode(progress))

    def away(self, why: str) -> None:
        """Say so, once, where it does not spoil the output."""
        self._beside.away(why)


class _Tree:
    """The live tree."""

    def __init__(self) -> None:
        from rich.console import Console  # noqa: PLC0415 - 40 ms other commands need not pay
        from rich.live import Live  # noqa: PLC0415

        from controller.cli.rollout_tree import tree  # noqa: PLC0415

        self._tree: Callable[..., RenderableType] = tree
        self._progress: Progress | None = None
        self._live = Live(console=Console(stderr=True), auto_refresh=False)

    def __enter__(self) -> object:
        return self._live.__enter__()

    def __exit__(self, *_: object) -> None:
        self._live.__exit__(None, None, None)

    def show(self, progress: Progress) -> None:
        """Draw it anew: its countdown moves also where nothing else does."""
        self._progress = progress
        self._live.update(self._tree(progress), refresh=True)

    last = show

    def away(self, why: str) -> None:
        """Leave what was seen last, and say why it is not newer."""
        if self._progress is not None:
            self._live.update(self._tree(self._progress, away=why), refresh=True)


def line(progress: Progress) -> str:
    """Return where a rollout stands, without what only time changes."""
    target, limits, deadline = progress.target, progress.limits, progress.deadline
    words = [
        f"{progress.deployment}: {progress.state.rpartition('/')[2]}",
        f"new {progress.ready_of('new')}/{target} ready",
        f"{progress.active_of('old')} old active",
    ]
    if limits is not None:
        words.append(f"{limits.ready} ready (floor {limits.floor})")
    if 0 < progress.traffic_percent < 100 and progress.active_of("old"):  # noqa: PLR2004
        words.append(f"{progress.traffic_percent} % of the traffic to new")
    if deadline is not None and deadline.clock is not Clock.RUNS:
        words.append(deadline.clock)
    if progress.outlook is not None:
        words.append(f"next {progress.outlook.rule}")
    return ", ".join(words)
