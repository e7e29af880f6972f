"""One look at the fleet by somebody who does not lead: the database, and the bus.

Used to explain. What only the leader sees is on record in the database: its HOLD, and when that
ended. A bus that is away is no error here: it is part of the answer.
"""

from dataclasses import dataclass, replace
from math import inf
from typing import Final, TypedDict

from controller.bus import ControlBus
from controller.db.explaining import Found
from controller.db.repository import Repository
from controller.db.session import Database
from controller.model import DeploymentId, RouteId, Snapshot
from controller.reconcile.handler import World
from controller.reconcile.observe import is_probed
from controller.route import guard
from controller.route.guard import BusView, HoldCause, StatusEvidence
from controller.route.guard.budget import CLOSING_S
from controller.route.guard.evidence import NOTHING_SEEN
from probe.errors import BusError
from probe.wire import ProberHeartbeat, ReplicaId

OUTSIDE: Final = (
    "seen from outside: a second opinion, and how long a new leader has watched, are its own "
    "knowledge, and may hold more than this"
)
BLIND: Final = (
    "the bus cannot be read from here: this is told from the database alone; the leader may see "
    "more, and says so in its log (`bus_away`)"
)
LONG_S: Final = 86_400.0
"""For how long there was no HOLD, when none is on record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """The fleet as it is explained."""

    world: World
    trouble: str = ""
    """Why the bus could not be read."""
    probers: tuple[ProberHeartbeat, ...] = ()
    notes: tuple[str, ...] = ()


async def look(database: Database, bus: ControlBus | None, found: Found) -> Sight:
    """Look once, for what was asked about.

    Raises:
        DatabaseUnreachable: if the database does not answer.
    """
    snapshot = await Repository(database).observe()
    view, probers, trouble = await _look_at_bus(bus, snapshot)
    settled = guard.settled(snapshot.routes, snapshot.deployments)
    hold = guard.hold(
        settled,
        view,
        coverage=guard.coverage_percent(settled, view),
        newly_unhealthy=found.newly_unhealthy,
    )
    # What only the leader sees, a clock that stepped, probers that are gone, it has recorded.
    hold = hold or frozenset(cause for cause in HoldCause if cause in found.held)
    held = guard.held_deployments(snapshot)
    view = replace(view, **_quiet(found, snapshot.now_ms, held=bool(hold)))
    return Sight(
        world=World(
            snapshot=snapshot,
            view=view,
            hold=hold,
            held_deployments=held,
            closing_deployments=_closing(found, snapshot.now_ms) - held,
        ),
        trouble=trouble,
        probers=probers,
        notes=(BLIND if trouble else OUTSIDE,),
    )


def _closing(found: Found, now_ms: int) -> frozenset[DeploymentId]:
    """Return the deployment asked about, when its own breaker let go only lately."""
    over_ms = found.breaker_over_ms
    if found.deployment is None or over_ms is None or now_ms - over_ms >= CLOSING_S * 1000:
        return frozenset()
    return frozenset({found.deployment.id})


class _Quiet(TypedDict):
    clear_for_s: float
    held_before: bool


def _quiet(found: Found, now_ms: int, *, held: bool) -> _Quiet:
    """Return for how long there was no HOLD, as far as it is on record."""
    over_ms = found.hold_over_ms
    since_s = LONG_S if over_ms is None else (now_ms - over_ms) / 1000
    return {"clear_for_s": 0.0 if held else since_s, "held_before": held or over_ms is not None}


async def _look_at_bus(
    bus: ControlBus | None, snapshot: Snapshot
) -> tuple[BusView, tuple[ProberHeartbeat, ...], str]:
    """Look once. Ages are by the bus's own clock here: one look cannot see a `seq` move."""
    if bus is None:
        return NOTHING_SEEN, (), "no bus was named"
    try:
        said = await bus.read_evidence([ReplicaId(r.id) for r in snapshot.routes if is_probed(r)])
    except BusError as error:
        return NOTHING_SEEN, (), str(error)
    well = {name: beat for name, beat in said.probers.items() if not beat.sick}
    view = BusView(
        reachable=True,
        remembers_for_s=0.0 if said.epoch is None else inf,
        covered_for_s={p: inf for beat in well.values() for p in beat.partitions},
        statuses={
            RouteId(replica_id): StatusEvidence(
                status=status, age_s=max(0.0, said.time_s - status.last_check)
            )
            for replica_id, status in said.statuses.items()
        },
        unreadable=frozenset(RouteId(one) for one in said.unreadable),
        clear_for_s=LONG_S,
        probers={name: frozenset(beat.partitions) for name, beat in well.items()},
        probers_max=len(well),
    )
    return view, tuple(said.probers.values()), ""
