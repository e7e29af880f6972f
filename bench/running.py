"""A prober that runs: what a round needs to know of it, whatever it is."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.build import Programs
from bench.case import Case, Regime, RoundFailed, Values
from bench.farm import Farm
from bench.machine import cores
from controller.child import Child

ROOT: Final = Path(__file__).parents[1]
_TAIL_CHARS: Final = 2000


class Running:
    """One prober at work on one farm; what most have nothing to say about is empty."""

    pid: int
    bus_pid: int | None = None

    def check(self) -> None:
        """Look whether it still runs.

        Raises:
            RoundFailed: if it has ended.
        """

    def ready(self) -> bool:
        """Tell whether all that it has to do is known to it and was done once."""
        return True

    def counters(self) -> Values:
        """Return counts of its own that only grow, for a window's two ends."""
        return {}

    def found(self, before: Values, after: Values, took_s: float) -> Values:
        """Return what its own counters say of a window."""
        return {}

    def verify(self) -> None:
        """Look whether what it found is true.

        Raises:
            RoundFailed: if it is not.
        """


class Process(Running):
    """A prober that is a child of ours."""

    def __init__(self, child: Child) -> None:
        if child.pid is None:
            raise RoundFailed(f"the prober ended: {child.log_tail()}")
        self.pid = child.pid
        self._child = child

    def check(self) -> None:
        """See `Running`."""
        if self._child.pid is None:
            raise RoundFailed(f"the prober ended: {self.log()[-_TAIL_CHARS:]}")

    def log(self) -> str:
        """Return what it has said so far."""
        return self._child.log_path.read_text(errors="replace")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a round takes place."""

    case: Case
    farm: Farm
    programs: Programs
    directory: Path
    """Empty, and its own."""


@dataclass(frozen=True, slots=True)
class Peer:
    """One kind of prober: what it is, what it can do, and how it is started."""

    what: str
    """In one sentence, for people."""
    run: Callable[[Place], AbstractContextManager[Running]]
    missing: Callable[[], str | None]
    """Tell what must be installed, if it is not."""
    regimes: tuple[Regime, ...] = (Regime.KEPT, Regime.NEW)


def never() -> None:
    """Miss nothing: what this prober needs, the project's environment has."""


@contextmanager
def started(
    place: Place,
    command: Sequence[str],
    *,
    prober: bool = True,
    name: str = "prober",
    environment: Mapping[str, str] | None = None,
) -> Iterator[Child]:
    """Run a command on the prober's core, or with the farm, until the block ends."""
    log = place.directory / f"{name}.log"
    more = {"PYTHONPATH": str(ROOT), **(environment or {})}
    child = Child(command, log_path=log, environment={**os.environ, **more})
    try:
        with cores(prober=prober):
            child.start()
        yield child
    finally:
        child.end()
