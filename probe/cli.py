"""The prober's commands, mounted by the console script `fleetpulse`; each is a face, no more.

Imports click alone at first: what a command needs is imported when it runs. Exit codes: 0 done,
1 the thing asked about is bad, 2 usage, 3 a service cannot be reached.
"""

import sys
from collections.abc import Callable, Iterable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

import click

from probe.errors import BusError, FleetpulseError

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from probe.layers import Effective
    from probe.settings import Settings

EXIT_BAD: Final = 1
EXIT_USAGE: Final = 2
EXIT_UNREACHABLE: Final = 3
STDERR: Final = 2

_P = ParamSpec("_P")
_T = TypeVar("_T")


class _Unusable(click.ClickException):
    """What was asked for cannot be."""

    exit_code = EXIT_USAGE


class _Unreachable(click.ClickException):
    """A service did not do what it was asked."""

    exit_code = EXIT_UNREACHABLE


def _plainly(command: Callable[_P, _T]) -> Callable[_P, _T]:
    """Turn the errors that are raised on purpose into a sentence and an exit code."""

    @wraps(command)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return command(*args, **kwargs)
        except BusError as error:
            raise _Unreachable(str(error)) from error
        except FleetpulseError as error:
            raise _Unusable(str(error)) from error

    return run


_redis = click.option(
    "--redis", "redis_url", metavar="URL", help="The bus: redis://, rediss:// or unix://."
)
_allow = click.option(
    "--allow", multiple=True, metavar="CIDR", help="A network that may be dialled; repeatable."
)
_json = click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")


@click.command()
@click.option("--config", type=click.Path(path_type=Path), help="A TOML file with a table [probe].")
@_redis
@_allow
@click.option("--metrics", metavar="HOST:PORT", help="Where /metrics is; port 0 picks a free one.")
@click.option(
    "--workers", metavar="N|auto", help="Processes that share the work; auto: one for each core."
)
@click.option("--shard", metavar="I/N", help="A fixed share of all targets, the I-th of N.")
@click.option("--once", is_flag=True, help="Probe every target, write the statuses, end.")
@click.option("--check-config", is_flag=True, help="Print the settings and their sources, end.")
@_plainly
def probe(
    config: Path | None,
    redis_url: str | None,
    allow: tuple[str, ...],
    *,
    metrics: str | None,
    workers: str | None,
    shard: str | None,
    once: bool,
    check_config: bool,
) -> None:
    """Run the prober daemon: targets from the bus, probes, statuses to the bus."""
    effective = _settings(
        config,
        redis_url=redis_url,
        allow=allow,
        metrics=metrics,
        workers=int(workers) if workers and workers.isdecimal() else workers,
        shard=shard,
    )
    if check_config:
        for text in effective.lines():
            click.echo(text)
        return
    from probe import daemon, logs  # noqa: PLC0415
    from probe.workers import supervisor  # noqa: PLC0415

    logs.configure()
    settings = effective.settings
    if (count := supervisor.workers_of(settings)) > 1:
        crew = supervisor.Supervisor(settings, count=count, once=once)
        _run(lambda: crew.run(click.echo))
    else:
        show = daemon.on_port(settings, click.echo)
        _run(lambda: daemon.run(settings, once=once, show=show))


@click.command()
@click.argument("asked", metavar="TARGET...", nargs=-1, required=True)
@click.option(
    "--profile", metavar="NAME", help="Check it so: http, tcp, vllm, ...; else as the target says."
)
@_redis
@_allow
@_json
@_plainly
def check(
    asked: tuple[str, ...],
    profile: str | None,
    redis_url: str | None,
    allow: tuple[str, ...],
    *,
    as_json: bool,
) -> None:
    """Probe each TARGET once: a URL, or the id of a replica on the bus.

    Exits 0 if all passed, 1 if one did not.
    """
    settings = _settings(None, redis_url=redis_url, allow=allow).settings
    from probe.commands import console  # noqa: PLC0415

    findings = _run(lambda: console.check_each(asked, settings, profile=profile))
    console.print_findings(findings, as_json=as_json)
    if not all(finding.passed for finding in findings):
        raise click.exceptions.Exit(EXIT_BAD)


@click.group()
def targets() -> None:
    """Feed the prober by hand, so that it is useful without a controller."""


@targets.command("load")
@click.argument("file", type=click.File("rb"))
@_redis
@_json
@_plainly
def targets_load(file: Iterable[bytes], redis_url: str | None, *, as_json: bool) -> None:
    """Write the targets of FILE (JSON Lines, - for stdin) to the bus, each for an hour.

    A line that cannot be used is reported with its number; the others are loaded. Exits 1 then.
    A key that is not known is reported, and ignored.
    """
    settings = _settings(None, redis_url=redis_url).settings
    from probe.commands import console, show  # noqa: PLC0415

    found = console.parse_targets(file)
    for bad in (*found.rejected, *found.doubted):
        click.echo(f"line {bad.line}: {bad.error}", err=True)
    loaded = _run(lambda: console.load(found.targets, settings))
    if as_json:
        show.line({"loaded": loaded, "rejected": found.rejected})
    else:
        click.echo(f"loaded {loaded} targets, rejected {len(found.rejected)} lines")
    if found.rejected:
        raise click.exceptions.Exit(EXIT_BAD)


@targets.command("list")
@_redis
@_json
@_plainly
def targets_list(redis_url: str | None, *, as_json: bool) -> None:
    """List the targets on the bus; with --json as `targets load` reads them."""
    settings = _settings(None, redis_url=redis_url).settings
    from probe.commands import console  # noqa: PLC0415

    found = _run(lambda: console.listed(settings))
    console.print_targets(found, as_json=as_json)


@targets.command("remove")
@click.argument("replica_ids", metavar="ID...", nargs=-1, required=True)
@_redis
@_json
@_plainly
def targets_remove(replica_ids: tuple[str, ...], redis_url: str | None, *, as_json: bool) -> None:
    """Remove targets and their statuses. Exits 1 if one was not there."""
    settings = _settings(None, redis_url=redis_url).settings
    from probe.commands import console, show  # noqa: PLC0415

    removed = _run(lambda: console.remove(replica_ids, settings))
    if as_json:
        show.line({"removed": removed, "asked": len(set(replica_ids))})
    else:
        click.echo(f"removed {removed} of {len(set(replica_ids))} targets")
    if removed < len(set(replica_ids)):
        raise click.exceptions.Exit(EXIT_BAD)


@click.command()
@click.argument("replica_ids", metavar="[ID]...", nargs=-1)
@click.option("--watch", is_flag=True, help="Go on until Ctrl-C; off a terminal, print changes.")
@_redis
@_json
@_plainly
def status(
    replica_ids: tuple[str, ...], redis_url: str | None, *, watch: bool, as_json: bool
) -> None:
    """Show statuses as the bus has them; all of them, or those of the IDs.

    With IDs exits 1 if one of them is not healthy.
    """
    settings = _settings(None, redis_url=redis_url).settings
    from probe.commands import console  # noqa: PLC0415

    if watch:
        try:
            _run(lambda: console.watch(replica_ids, settings, as_json=as_json))
        except KeyboardInterrupt:
            return
    found = _run(lambda: console.statuses(replica_ids, settings))
    console.print_statuses(found, as_json=as_json)
    if replica_ids and not found.all_healthy:
        raise click.exceptions.Exit(EXIT_BAD)


@click.command()
@click.option(
    "--seconds",
    type=click.FloatRange(3, 13),
    default=8.0,
    show_default=True,
    help="How long to measure.",
)
@click.option(
    "--latency",
    "latency_s",
    type=click.FloatRange(0.0001, 600),
    default=0.1,
    show_default=True,
    help="Seconds a replica takes to reply, on average.",
)
@_redis
@_json
@_plainly
def capacity(seconds: float, latency_s: float, redis_url: str | None, *, as_json: bool) -> None:
    """Measure how many replicas one worker could watch on this machine.

    Needs neither bus nor replicas: it asks a stand-in of its own, on loopback, and writes the
    statuses to a Valkey of its own where one is installed. With --redis to that server: as many
    as a large fleet's, under keys that begin with capacity: and expire within two minutes.
    """
    from probe import bounds, logs  # noqa: PLC0415
    from probe.commands import capacity, show  # noqa: PLC0415

    logs.configure()
    settings = _settings(None, redis_url=redis_url).settings if redis_url else None
    steps, hidden = 50, not sys.stderr.isatty()  # each step drawn is CPU that is measured
    with click.progressbar(length=steps, label="measuring", file=sys.stderr, hidden=hidden) as bar:
        found = _run(
            lambda: capacity.measure(
                seconds,
                lambda done: bar.update(int(done * steps) - bar.pos),
                settings=settings,
                latency_s=latency_s,
            )
        )
    if as_json:
        show.line(found)
    else:
        click.echo("\n".join(bounds.lines(found)))


COMMANDS: Final = {
    "probe": probe,
    "check": check,
    "targets": targets,
    "status": status,
    "capacity": capacity,
}
"""By name, for the console script."""


def _settings(config: Path | None, **flags: Any) -> "Effective[Settings]":  # noqa: ANN401
    """Layer the settings under the flags that were given."""
    import os  # noqa: PLC0415

    from probe.settings import load  # noqa: PLC0415

    given = {name: value for name, value in flags.items() if value not in (None, ())}
    return load(config, os.environ, flags=given)


def _fill_descriptors() -> None:
    """Put something in place of closed standard streams: uvloop aborts where it gets their number.

    A supervisor may start a daemon without stdin, and a shell any command with `>&-`.
    """
    import os  # noqa: PLC0415

    descriptor = 0
    while descriptor <= STDERR:
        descriptor = os.open(os.devnull, os.O_RDWR)
    os.close(descriptor)


def _run(main: Callable[[], "Awaitable[_T]"]) -> _T:
    """Run a coroutine on the event loop of the hot path."""
    import anyio  # noqa: PLC0415

    _fill_descriptors()
    return anyio.run(main, backend="asyncio", backend_options={"use_uvloop": True})
