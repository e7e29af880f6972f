"""All that is known around one route, for those who explain it: `explain`, `seen`, `outlook`."""

from collections.abc import Sequence
from dataclasses import dataclass

from controller.explanation import Clockwork, Happened
from controller.model import Deployment, Route, RouteChange
from controller.route.gates import Bars
from controller.route.orphans import known_revisions
from controller.route.warmup import observed_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Watcher:
    """The living prober that covers a route's partition."""

    instance: str
    sick: str = ""
    interval_stretch: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """All that is known around one route."""

    route: Route
    deployment: Deployment | None
    """None when it is destroyed."""
    name: str
    """The deployment's."""
    revision: int
    """The number of its revision."""
    history: Sequence[Happened]
    """The newest first."""
    now_ms: int
    bars: Bars
    clockwork: Clockwork
    bus_trouble: str = ""
    """Why the bus could not be read."""
    notes: Sequence[str] = ()
    """What is not told, and why."""
    watcher: Watcher | None = None
    still_ms: int = 0
    """For how long HOLD has stopped the clock of its stay (S15)."""
    turn: RouteChange | None = None
    """What the step over its deployment makes of it at its next run."""

    @property
    def warmed_s(self) -> float:
        """Return how much of its time to warm up is over."""
        if self.bars.hold:
            return 0.0
        stay_ms = self.now_ms - self.route.entered_at_ms
        return observed_s(stay_ms, self.still_ms, self.bars.view)

    @property
    def stay_s(self) -> float:
        """Return how long the route has been where it is."""
        return (self.now_ms - self.route.entered_at_ms) / 1000

    @property
    def orphaned(self) -> bool:
        """Tell whether the deployment points to other revisions than the route's."""
        known = {} if self.deployment is None else known_revisions(self.deployment)
        return bool(known) and self.route.revision_id not in known
