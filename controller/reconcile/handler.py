"""What a handler is: one reconcile step, and all the coordinator knows of it.

A handler selects what it is responsible for, and decides. It never writes state itself: it
returns changes, and the coordinator applies them in one transaction, writes their history, and
tells the handler afterwards what really happened. What a decision needs from outside (a
provisioner, the bus) a handler may ask for; what fails there becomes a note, never an exception
that stops its neighbours (R-15).
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar

from controller.db.repository import Applied as WrittenRows
from controller.db.repository import Repository
from controller.model import (
    Decision,
    Deployment,
    DeploymentId,
    HoldSpan,
    Note,
    Route,
    RouteChange,
    RouteId,
    Snapshot,
)
from controller.route.guard import BusView, HoldCause
from controller.route.guard.clocks import stood_still_ms


class Mark(StrEnum):
    """What may wake a handler before its period is over; each has a producer (R-49)."""

    PENDING = "pending"
    """A route was created."""
    STARTING = "starting"
    """A route was handed to the provisioner."""
    WARMING_UP = "warming_up"
    """A route has an address, or its health changed."""
    HEALTH = "health"
    """The prober announced a change of verdict."""
    READINESS = "readiness"
    """A route became ready, stopped being ready, or went away."""
    DRAINING = "draining"
    """A route is to leave."""
    COOLING_DOWN = "cooling_down"
    """A route has left, and waits for its end."""
    UNREGISTERED = "unregistered"
    """Proxies were told of another table: who is not in it may go."""
    TARGETS = "targets"
    """The set of replicas to probe changed, or the bus lost its memory."""
    DOUBT = "doubt"
    """The bus did not answer: two such looks in a row are HOLD, so the next one comes soon."""
    DEPLOYMENTS = "deployments"
    """An operator changed a deployment."""
    ANSWERED = "answered"
    """The provisioner answered after a handler had stopped waiting for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What one run of a handler may know: the database, the bus, and what is frozen."""

    snapshot: Snapshot
    view: BusView
    hold: frozenset[HoldCause]
    """Why the whole fleet is held."""
    held_deployments: frozenset[DeploymentId] = frozenset()
    """Those that a breaker of their own holds (S9)."""
    closing_deployments: frozenset[DeploymentId] = frozenset()
    """Those that theirs let go less than two minutes ago: evictions wait there (S21)."""
    jumps: tuple[HoldSpan, ...] = ()
    """What the database's clock left out: among the snapshot's holds, too."""

    @property
    def causes(self) -> frozenset[HoldCause]:
        """Return every cause that holds anything at all."""
        own = {HoldCause.DEPLOYMENT_BREAKER} if self.held_deployments else set()
        return self.hold | own

    def frozen(self, deployment_id: DeploymentId) -> bool:
        """Tell whether deadlines of one deployment wait: held, or nothing was seen this time."""
        return bool(self.hold_for(deployment_id)) or not self.view.reachable

    def stood_ms(self, route: Route) -> int:
        """Return how long a route has stood where it stands, by the database's clock (R-36).

        HOLD does not stop this: it is no matter of what probers see.
        """
        now_ms, since_ms = self.snapshot.now_ms, route.entered_at_ms
        left_out_ms = stood_still_ms(
            self.jumps, route.deployment_id, since_ms=since_ms, until_ms=now_ms
        )
        return now_ms - since_ms - left_out_ms

    def hold_for(self, deployment_id: DeploymentId) -> frozenset[HoldCause]:
        """Return why one deployment is held; a forced one never is (S21)."""
        deployment = self.snapshot.deployments.get(deployment_id)
        if deployment is not None and deployment.forced(self.snapshot.now_ms):
            return frozenset()
        if deployment_id in self.held_deployments:
            return self.hold | {HoldCause.DEPLOYMENT_BREAKER}
        return self.hold


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a handler of routes decided: a change for some, a note for others, by row."""

    changes: tuple[RouteChange, ...] = ()
    notes: tuple[Note, ...] = ()
    look_again: bool = False
    """Some wait for what makes no mark: the next run comes as if one had been set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What became of a plan."""

    changes: tuple[RouteChange, ...]
    """Those that were written, in order."""
    lost: tuple[RouteId, ...] = ()
    """Those whose row had changed meanwhile: the next run sees them afresh."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """When a handler runs."""

    period_s: float
    on_mark_s: float | None = None
    """The shortest time between two runs when a mark wakes it; None: marks do not."""
    first_after_s: float = 0.0
    consumes: frozenset[Mark] = field(default_factory=frozenset)
    produces: frozenset[Mark] = field(default_factory=frozenset)
    """Set when a run changed something."""


class RouteHandler(ABC):
    """A step over routes: every route stands alone, a lost or failed one hurts no other."""

    name: ClassVar[str]
    divisible: ClassVar[bool] = True
    """Whether half of the routes can be decided over without the other half."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule

    @abstractmethod
    def select(self, world: World) -> Sequence[Route]:
        """Return the routes this handler is responsible for now; none: nothing is asked."""

    @abstractmethod
    async def decide(self, world: World, routes: Sequence[Route]) -> Plan:
        """Return what to change.

        Raises:
            ControllerError: if it cannot be told now; nothing changes then.
        """

    async def write(
        self, repository: Repository, world: World, plan: Plan, *, epoch: int
    ) -> WrittenRows:
        """Write what was decided over `world`; most need no other grounds than the rows."""
        del world
        return await repository.apply(plan.changes, plan.notes, epoch=epoch)

    async def after(self, world: World, applied: Applied) -> None:  # noqa: B027 - most need none
        """Do what follows a commit, with what was really committed (R-21, R-57)."""


class DeploymentHandler(ABC):
    """A step over deployments: one decision each, whole or not at all."""

    name: ClassVar[str]

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule

    @abstractmethod
    def select(self, world: World) -> Sequence[Deployment]:
        """Return the deployments this handler is responsible for now."""

    async def look(  # noqa: B027 - most need nothing else
        self, world: World, routes: Mapping[DeploymentId, Sequence[Route]]
    ) -> None:
        """Read what the decisions of this run need beyond the world.

        Raises:
            DatabaseUnreachable: if the database does not answer.
        """

    @abstractmethod
    def decide(
        self, world: World, deployment: Deployment, routes: Sequence[Route]
    ) -> Decision | None:
        """Return what to change for one deployment, given its routes; None: nothing."""

    def category(self, deployment: Deployment) -> str:
        """Return in whose name a failure to decide over `deployment` goes into its history."""
        del deployment
        return self.name

    def after_failures(
        self, world: World, deployment: Deployment, *, attempts: int, error: str
    ) -> Decision | None:
        """Return what to do instead, after so many failures in a row (R-12); None: try again."""
        del world, deployment, attempts, error
        return None


class FleetHandler(ABC):
    """A step over the whole fleet that writes neither routes nor deployments, but beside them.

    So no world seen before is out of date by it, and the coordinator has nothing to apply.
    """

    name: ClassVar[str]

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule

    @abstractmethod
    async def commit(self, world: World, *, epoch: int) -> int:
        """Do what is to do, in transactions under `epoch`; return how many rows changed.

        Raises:
            LeaseLost: if `epoch` does not lead any more.
            DatabaseUnreachable: if the database does not answer.
        """
