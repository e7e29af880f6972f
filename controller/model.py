"""The nouns of the control plane: deployment, revision, route, rollout, and one moment of all.

Pure values. Every room decides over these; only `controller.db` turns them into rows. Times are
integer milliseconds of the database's clock (`_ms`), the only clock that decides anything here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Final, NewType

import msgspec

from controller.model_definition import Grace, Interval, ModelDefinition, Port, Times, WaitTime

DeploymentId = NewType("DeploymentId", str)
RevisionId = NewType("RevisionId", str)
RouteId = NewType("RouteId", str)
"""The same UUID is `replica_id` on the bus."""
RolloutId = NewType("RolloutId", str)

EXTERNAL_SESSION: Final = "external"
"""The session of every route registered by hand: it names none of them."""


class Lifecycle(StrEnum):
    """Where a deployment stands."""

    PENDING = "pending"
    """Created, no revision has ever served."""
    READY = "ready"
    """At rest: `current` serves, replica count is kept."""
    DEPLOYING = "deploying"
    """A rollout moves `deploying` towards `current`; replica count is the rollout's affair."""
    DESTROYING = "destroying"
    """Going away: every route drains."""
    DESTROYED = "destroyed"
    """Gone; never comes back (R-38)."""


class SubStep(StrEnum):
    """Where a rollout stands, inside DEPLOYING. No strategy's name in it (R-22)."""

    PROVISIONING = "provisioning"
    PROGRESSING = "progressing"
    AWAITING_PROMOTION = "awaiting_promotion"
    ROLLING_BACK = "rolling_back"


class RouteStatus(StrEnum):
    """The lifecycle axis of a route."""

    PROVISIONING = "provisioning"
    RUNNING = "running"
    TERMINATING = "terminating"
    TERMINATED = "terminated"
    """Terminal (R-34)."""
    FAILED_TO_START = "failed_to_start"
    """Terminal (R-34)."""


class Stage(StrEnum):
    """Where a route stands inside PROVISIONING or TERMINATING; cleared on leaving them (R-42)."""

    PENDING = "pending"
    STARTING = "starting"
    WARMING_UP = "warming_up"
    DRAINING = "draining"
    COOLING_DOWN = "cooling_down"


class Health(StrEnum):
    """The health axis of a route."""

    NOT_CHECKED = "not_checked"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    DEGRADED = "degraded"
    """Nobody looked: not the same as dead, and never evicted by default (S2)."""


class Traffic(StrEnum):
    """The traffic axis of a route: what we want, not what the proxy has done yet."""

    ACTIVE = "active"
    INACTIVE = "inactive"


class Outcome(StrEnum):
    """How a rollout ended."""

    PROMOTED = "promoted"
    ROLLED_BACK = "rolled_back"
    ABORTED = "aborted"
    SUPERSEDED = "superseded"
    EXPIRED = "expired"
    FAILED = "failed"


class HealthCheck(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a replica of one revision is checked; copied onto each route at its creation."""

    path: str
    interval_s: Interval = 10.0
    max_wait_time_s: WaitTime = 15.0
    expected_status_code: str = "200"
    max_retries: Times = 10
    healthy_threshold: Times = 1
    initial_delay_s: Grace = 60.0
    """Grace for warming up, not a delay before the first probe."""


Bound = Annotated[int, msgspec.Meta(ge=0)] | Annotated[str, msgspec.Meta(pattern=r"\A\d{1,3}%\Z")]
"""A count of replicas, or a percentage of the target count."""


class WeightStep(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A share of the traffic for the new revision, and how long it stays at that."""

    weight_percent: Annotated[int, msgspec.Meta(ge=1, le=99)]
    pause_s: Annotated[float, msgspec.Meta(ge=0, le=86_400)] = 0.0


class Policy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a deployment may be changed; `rollout.strategies` knows the strategies (R-26)."""

    strategy: str = "rolling"
    surge: Bound = "50%"
    unavailable: Bound = 0
    min_ready_s: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    max_failed_replicas: Annotated[int, msgspec.Meta(ge=0)] | None = None
    """Failed new replicas a rollout may replace; None: the larger of 3 and the target count."""
    rollout_timeout_s: Annotated[float, msgspec.Meta(gt=0)] = 7200.0
    capacity: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """Replicas there is room for at all, in a rollout too; None: nobody counts."""
    auto_promote: bool = True
    """False: an operator promotes, once the new replicas are ready."""
    promote_delay_s: Annotated[float, msgspec.Meta(ge=0, le=86_400)] = 0.0
    """For how long all new replicas must have been ready before they are promoted."""
    scale_down_delay_s: Annotated[float, msgspec.Meta(ge=0, le=7 * 86_400)] = 0.0
    """For how long the old ones stay after a promotion, without traffic, to switch back to."""
    steps: tuple[WeightStep, ...] = ()
    """Shares of the traffic that the new revision gets one after the other."""


class RevisionSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one replica runs: resolved in full when the revision is created, never after (R-58)."""

    command: tuple[str, ...] = ()
    image: str = ""
    environment: dict[str, str] = msgspec.field(default_factory=dict)
    port: Port | None = None
    health_check: HealthCheck | None = None
    external: bool = False
    """Replicas are run by somebody else and registered by hand: none is created or replaced."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Revision:
    """One immutable version of a deployment; `number` counts from 1 within it."""

    id: RevisionId
    deployment_id: DeploymentId
    number: int
    spec: RevisionSpec
    definition: ModelDefinition | None
    """What `spec` was made of, for people; None where the revision was asked for plainly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """One attempt to make a revision current."""

    id: RolloutId
    deployment_id: DeploymentId
    revision_id: RevisionId
    from_revision_id: RevisionId | None
    policy: Policy
    """As it was when the rollout began."""
    started_at_ms: int
    deadline_at_ms: int
    actor: str
    outcome: Outcome | None = None
    ended_at_ms: int | None = None
    paused_at_ms: int | None = None
    """Since when an operator has stopped its clocks; None: they run."""
    promote_asked: bool = False
    """An operator promoted it: nothing but readiness is waited for."""
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """A named service: how many replicas of which revision."""

    id: DeploymentId
    name: str
    lifecycle: Lifecycle
    sub_step: SubStep | None
    replicas: int
    desired_replicas: int | None
    """Set by scaling; wins over `replicas`."""
    policy: Policy
    cleanup_target_statuses: frozenset[Health]
    current: Revision | None
    deploying: Revision | None
    rollout: Rollout | None
    """The one in flight; present exactly when `deploying` is."""
    version: int
    """Grows with every write; the compare-and-set of R-17."""
    phase_entered_at_ms: int
    kept: Revision | None = None
    """The one before `current`, whose replicas are kept without traffic to switch back to."""
    kept_until_ms: int | None = None
    forced_until_ms: int | None = None
    """Until when an operator lets evictions here pass HOLD (S21); None: nobody did."""

    @property
    def target_count(self) -> int:
        """Return how many ready replicas are wanted."""
        return self.replicas if self.desired_replicas is None else self.desired_replicas

    def forced(self, now_ms: int) -> bool:
        """Tell whether an operator answers for evictions here at this moment."""
        return self.forced_until_ms is not None and now_ms < self.forced_until_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One replica of one revision, on three axes: status (with stage), health, traffic."""

    id: RouteId
    deployment_id: DeploymentId
    revision_id: RevisionId
    status: RouteStatus
    stage: Stage | None
    health: Health
    traffic: Traffic
    traffic_ratio: float
    health_check: HealthCheck | None
    session_id: str | None
    host: str | None
    port: int | None
    created_at_ms: int
    entered_at_ms: int
    """When status or stage last changed."""
    ready_since_ms: int | None
    """When the route last became ready; None while it is not."""
    version: int
    reason: str = ""

    @property
    def active(self) -> bool:
        """Tell whether the route is provisioning or running."""
        return self.status in (RouteStatus.PROVISIONING, RouteStatus.RUNNING)

    @property
    def ready(self) -> bool:
        """Tell whether the route can serve: the one definition everything uses."""
        return self.status is RouteStatus.RUNNING and (
            self.health is Health.HEALTHY or self.health_check is None
        )

    @property
    def serves(self) -> bool:
        """Tell whether the route is ready, and no rollout keeps it out of traffic.

        What floors count: a green before its promotion, or a blue that is kept, serves nobody.
        """
        return self.ready and self.traffic_ratio > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldSpan:
    """A time in which HOLD stopped the clocks that rest on evidence (S15)."""

    deployment_id: DeploymentId | None
    """None: those of the whole fleet."""
    from_ms: int
    to_ms: int | None
    """None: it lasts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The database at one moment: deployments that are not destroyed, routes not terminal."""

    now_ms: int
    deployments: Mapping[DeploymentId, Deployment]
    routes: tuple[Route, ...]
    """In order of creation."""
    failed_counts: Mapping[RolloutId, int]
    """Routes each rollout in flight has lost on its new side since it began."""
    holds: tuple[HoldSpan, ...] = ()
    """Those that reach into the time of a rollout in flight."""
    unreadable: Mapping[DeploymentId, str] = field(default_factory=dict)
    """Deployments left alone because a row of theirs cannot be read, and why; not among the
    others, nor are their routes."""
    left_alone: frozenset[RouteId] = frozenset()
    """Their routes: what is known of them elsewhere stays as it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRoute:
    """A replica wanted."""

    id: RouteId
    deployment_id: DeploymentId
    revision_id: RevisionId
    traffic: Traffic
    traffic_ratio: float
    health_check: HealthCheck | None
    """Required, may be None: copied from the revision (a route without one is unmanaged)."""
    rollout_id: RolloutId | None
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteChange:
    """One transition of one route; fields left at None stay as they are."""

    route: Route
    """As it was seen: its version is the compare-and-set, its state the history's 'from'."""
    category: str
    """The handler's name; repeats of the same change merge within it."""
    message: str
    error_code: str = ""
    status: RouteStatus | None = None
    stage: Stage | None = None
    """Used together with `status`: a change of status without a stage clears it (R-42)."""
    health: Health | None = None
    traffic: Traffic | None = None
    traffic_ratio: float | None = None
    session_id: str | None = None
    host: str | None = None
    port: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentChange:
    """One transition of one deployment."""

    category: str
    message: str
    error_code: str = ""
    lifecycle: Lifecycle
    sub_step: SubStep | None = None
    end_rollout: Outcome | None = None
    """Ends the rollout in flight: PROMOTED moves `deploying` to `current`, all clear it."""
    restarts_clock: bool = False
    """The phase is entered anew, also when it is the one already."""
    keep_for_s: float = 0.0
    """With PROMOTED: for how long replicas of the revision before are kept to switch back to."""
    rule: str = ""
    """The rule that decided it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """History without a change of state: a wait, a skip, an error (R-19)."""

    deployment_id: DeploymentId
    route_id: RouteId | None
    category: str
    message: str
    result: str
    error_code: str = ""
    rule: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What was decided for one deployment: applied in one transaction, whole or not at all.

    The deployment's version, and that of every route named, must still be the one seen.
    """

    deployment: Deployment
    create: tuple[NewRoute, ...] = ()
    routes: tuple[RouteChange, ...] = ()
    change: DeploymentChange | None = None
    notes: tuple[Note, ...] = ()

    @property
    def empty(self) -> bool:
        """Tell whether there is nothing to write."""
        return not (self.create or self.routes or self.change or self.notes)
