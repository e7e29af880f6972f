"""One write of the database in memory: compare-and-set, and a row of history for each change.

What the SQL adapter promises is kept here, too. Knows nothing of who asks, and of no strategy.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
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
from controller.errors import Conflict
from controller.model import (
    Deployment,
    Note,
    Outcome,
    RolloutId,
    Route,
    RouteChange,
    RouteId,
)
from controller.simulate.tables import TERMINAL, Tables, is_gone

_EVENT: Final = tuple(Event.__slots__)


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


def changing(changes: Sequence[RouteChange]) -> list[RouteChange]:
    """Return the changes that alter anything."""
    return [change for change in changes if changes_anything(change)]
