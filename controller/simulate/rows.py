"""The database's rows in memory, and the one way to write them: whole or not at all.

What the SQL adapter promises is kept here, too: compare-and-set, the fence of the lease's epoch,
one row of history for each accepted change. Knows nothing of who asks, and of no strategy.
"""

from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any, Final

from controller.change import applied, changes_anything
from controller.db.events import (
    Event,
    HistoryEntry,
    deployment_state,
    noted,
    route_changed,
    route_created,
    route_state,
)
from controller.db.failures import FAULTS
from controller.db.outbox import Effect
from controller.errors import Conflict, DatabaseUnreachable, LeaseLost
from controller.model import (
    Deployment,
    DeploymentId,
    HoldSpan,
    Lifecycle,
    Note,
    Outcome,
    Revision,
    Rollout,
    RolloutId,
    Route,
    RouteChange,
    RouteId,
    RouteStatus,
)
from controller.route.table import Publication

TERMINAL: Final = (RouteStatus.TERMINATED, RouteStatus.FAILED_TO_START)


async def _at_once() -> None:
    """Let an exchange take no time."""


@dataclass(slots=True)
class Tables:
    """All rows."""

    deployments: dict[DeploymentId, Deployment] = field(default_factory=dict)
    """In order of creation, the destroyed ones included; the rollout's own row counts."""
    revisions: dict[DeploymentId, tuple[Revision, ...]] = field(default_factory=dict)
    """Oldest first."""
    rollouts: dict[RolloutId, Rollout] = field(default_factory=dict)
    routes: dict[RouteId, Route] = field(default_factory=dict)
    """Those that are not terminal."""
    ended: dict[RouteId, Route] = field(default_factory=dict)
    made_by: dict[RouteId, RolloutId] = field(default_factory=dict)
    history: list[HistoryEntry] = field(default_factory=list)
    newest: dict[tuple[str, str], int] = field(default_factory=dict)
    """Of each subject and category, the place in the history."""
    faults: defaultdict[DeploymentId, list[tuple[RouteId, int, str]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    departures: dict[RouteId, tuple[str, str]] = field(default_factory=dict)
    holds: list[HoldSpan] = field(default_factory=list)
    evictions: list[tuple[DeploymentId, str, int]] = field(default_factory=list)
    """Whose, why and when."""
    publications: dict[DeploymentId, Publication] = field(default_factory=dict)
    outbox: dict[str, Effect] = field(default_factory=dict)


@dataclass(slots=True)
class Lease:
    """Who leads, and until when."""

    holder: str = ""
    epoch: int = 0
    expires_at_ms: int = 0


class Write:
    """One transaction that has passed the fence."""

    def __init__(self, tables: Tables, *, now_ms: int, epoch: int | None) -> None:
        self.tables = tables
        self.now_ms = now_ms
        self.epoch = epoch
        self.events: list[HistoryEntry] = []
        self.written: Counter[str] = Counter()

    def route_changes(self, changes: Sequence[RouteChange]) -> list[RouteId]:
        """Write changes with their history; return the routes that were not as seen (R-17)."""
        first = {change.route.id: change for change in reversed(changes)}
        tables, lost, events = self.tables, [], []
        for change in changes:
            route_id = change.route.id
            known = tables.routes.get(route_id)
            mine = first[route_id] is change and known is not None
            if not mine or known is None or known.version != change.route.version:
                lost.append(route_id)
                continue
            after = applied(change, now_ms=self.now_ms)
            self._put(after)
            around = tables.deployments[after.deployment_id].rollout
            rollout_id = None if around is None else around.id
            events.append(route_changed(change, after, rollout_id=rollout_id))
        self.write_events(events)
        return lost

    def _put(self, route: Route) -> None:
        self.written["routes"] += 1
        if route.status in TERMINAL:
            self.tables.ended[route.id] = route
            self.tables.routes.pop(route.id, None)
        else:
            self.tables.routes[route.id] = route

    def add_route(self, route: Route, rollout_id: RolloutId | None, *, category: str) -> None:
        """Write a new route with its history."""
        self._put(route)
        if rollout_id is not None:
            self.tables.made_by[route.id] = rollout_id
        self.write_events([route_created(route, rollout_id, category=category)])

    def move(self, seen: Deployment, *, enters_phase: bool = False, **values: Any) -> Deployment:  # noqa: ANN401 - fields of a deployment
        """Write fields of a deployment that is still as seen.

        Raises:
            Conflict: if it is not.
        """
        known = self.still(seen)
        if enters_phase:
            values["phase_entered_at_ms"] = self.now_ms
        return self.put(replace(known, version=known.version + 1, **values))

    def still(self, seen: Deployment) -> Deployment:
        """Return a deployment that is still as seen.

        Raises:
            Conflict: if it is not.
        """
        known = self.tables.deployments.get(seen.id)
        if known is None or known.version != seen.version or is_gone(known):
            raise Conflict(
                f"deployment {seen.name!r} is not any more as it was seen at version "
                f"{seen.version}, or may not go there; look again and decide anew"
            )
        return known

    def put(self, after: Deployment) -> Deployment:
        """Write a deployment."""
        self.tables.deployments[after.id] = after
        self.written["deployments"] += 1
        return after

    def end_rollout(self, rollout_id: RolloutId, *, outcome: Outcome, message: str) -> None:
        """Write how a rollout ended, once; an outcome asked for before stays.

        Raises:
            Conflict: if it has ended already.
        """
        known = self.tables.rollouts[rollout_id]
        if known.ended_at_ms is not None:
            raise Conflict(f"rollout {rollout_id} has ended already; look at the deployment again")
        self.tables.rollouts[rollout_id] = replace(
            known,
            outcome=known.outcome or outcome,
            ended_at_ms=self.now_ms,
            message=known.message or message,
        )
        self.written["rollouts"] += 1

    def write_events(self, events: Sequence[Event]) -> None:
        """Write one row of history for each event."""
        tables = self.tables
        for event in events:
            entry = HistoryEntry(
                **{name: getattr(event, name) for name in _EVENT},
                attempts=1,
                epoch=self.epoch,
                created_at_ms=self.now_ms,
                updated_at_ms=self.now_ms,
            )
            tables.newest[event.subject, event.category] = len(tables.history)
            tables.history.append(entry)
            self.events.append(entry)
            self._index(entry)
        self.written["history"] += len(events)

    def _index(self, entry: HistoryEntry) -> None:
        if entry.route_id is None:
            return
        if entry.error_code in FAULTS:
            fault = (entry.route_id, self.now_ms, entry.message)
            self.tables.faults[entry.deployment_id].append(fault)
        served = entry.from_state.startswith("running") or entry.from_state.endswith(
            "traffic:active"
        )
        left = entry.to_state.startswith("termin") or entry.to_state.endswith("traffic:inactive")
        if served and left:
            self.tables.departures[entry.route_id] = entry.category, entry.error_code

    def write_notes(self, notes: Sequence[Note]) -> None:
        """Write notes; one that repeats the newest of its subject and category counts up (R-19)."""
        fresh: dict[Event, None] = {}
        for event in map(self._event, notes):
            place = self.tables.newest.get((event.subject, event.category))
            known = None if place is None else self.tables.history[place]
            if place is None or known is None or known.sameness != event.sameness:
                fresh[event] = None
                continue
            self.tables.history[place] = replace(
                known, attempts=known.attempts + 1, updated_at_ms=self.now_ms, epoch=self.epoch
            )
            self.written["history"] += 1
        self.write_events([*fresh])

    def _event(self, note: Note) -> Event:
        deployment = self.tables.deployments[note.deployment_id]
        route_id = note.route_id
        if route_id is None:
            state = deployment_state(deployment)
        else:
            known = self.tables.routes.get(route_id) or self.tables.ended.get(route_id)
            state = "" if known is None else route_state(known)
        rollout_id = None if deployment.rollout is None else deployment.rollout.id
        return noted(note, state=state, rollout_id=rollout_id)


_EVENT: Final = tuple(Event.__slots__)


def is_gone(deployment: Deployment) -> bool:
    """Tell whether nothing is left of a deployment but its record."""
    return deployment.lifecycle is Lifecycle.DESTROYED


Commit = Callable[[Write], None]


class Rows:
    """One database; every controller of a simulated world shares it."""

    def __init__(
        self,
        now_ms: Callable[[], int],
        *,
        exchange: Callable[[], Awaitable[None]] = _at_once,
        on_commit: Commit | None = None,
    ) -> None:
        """Prepare an empty one; `exchange` is awaited once before and once after each access."""
        self.now_ms = now_ms
        self.exchange = exchange
        self.tables = Tables()
        self.lease = Lease()
        self.away = False
        self._on_commit = on_commit

    async def reach(self) -> None:
        """Pass the way to the database.

        Raises:
            DatabaseUnreachable: if it is away.
        """
        await self.exchange()
        if self.away:
            raise DatabaseUnreachable("the simulated database is away")

    @contextmanager
    def write(self, *, epoch: int | None) -> Iterator[Write]:
        """Open a transaction; nothing of it is left when anything in it raises.

        Raises:
            LeaseLost: if `epoch` does not lead any more.
        """
        now_ms = self.now_ms()
        if epoch is not None and (self.lease.epoch != epoch or self.lease.expires_at_ms <= now_ms):
            raise LeaseLost(f"epoch {epoch} has ended; stop writing and start again")
        before = self.tables
        write = Write(_copied(before), now_ms=now_ms, epoch=epoch)
        yield write
        self.tables = write.tables
        if self._on_commit is not None:
            self._on_commit(write)

    def deployment(self, name: str) -> Deployment | None:
        """Return the living deployment called `name`."""
        for deployment in self.tables.deployments.values():
            if deployment.name == name and not is_gone(deployment):
                return self.seen(deployment)
        return None

    def seen(self, deployment: Deployment) -> Deployment:
        """Return a deployment as a reader sees it now: with its rollout's row, and what is kept."""
        rollout, kept = deployment.rollout, deployment.kept
        until_ms = deployment.kept_until_ms
        if kept is not None and (until_ms is None or until_ms <= self.now_ms()):
            kept = None
        row = None if rollout is None else self.tables.rollouts[rollout.id]
        if row is rollout and kept is deployment.kept:
            return deployment
        return replace(deployment, rollout=row, kept=kept)

    def living(self) -> Mapping[DeploymentId, Deployment]:
        """Return the deployments that are not destroyed, oldest first."""
        return {
            key: self.seen(each)
            for key, each in self.tables.deployments.items()
            if not is_gone(each)
        }


def changing(changes: Sequence[RouteChange]) -> list[RouteChange]:
    """Return the changes that alter anything."""
    return [change for change in changes if changes_anything(change)]


def _copied(tables: Tables) -> Tables:
    """Return tables that can be written without those of before; rows themselves never change."""
    copied = copy(tables)
    for name in Tables.__slots__:
        setattr(copied, name, copy(getattr(tables, name)))
    copied.faults = defaultdict(list, {key: [*each] for key, each in tables.faults.items()})
    return copied
