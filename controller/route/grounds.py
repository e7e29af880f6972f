"""What an eviction rests on, to be read once more in the transaction that writes it (S14)."""

from collections.abc import Sequence
from dataclasses import dataclass

from controller.model import Deployment, Route, RouteChange, RouteStatus, Snapshot
from controller.route.guard import BusView, evidence_of
from controller.route.guard.budget import deployment_allowance, fleet_allowance
from probe.wire import status_ttl_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Eviction:
    """One eviction with all that it rests on, to be read once more when it is written (S14)."""

    change: RouteChange
    deployment: Deployment
    """As it was seen: its revision pointers must still be these."""
    prober: str
    seq: int
    """Who said so, and in which status; empty where no status was needed."""
    age_ms: int
    """How old that was when it was decided ..."""
    age_max_ms: int
    """... and may be at most when it is written."""
    decided_at_ms: int
    fleet_max: int
    own_max: int
    """How many health evictions a minute may see, in the fleet and here."""


def rests_on(
    changes: Sequence[RouteChange], snapshot: Snapshot, view: BusView
) -> tuple[Eviction, ...]:
    """Return the evictions that were decided over `snapshot` and `view`, with their grounds."""
    fleet_max = fleet_allowance(running(snapshot.routes))
    found: list[Eviction] = []
    for change in changes:
        route = change.route
        deployment = snapshot.deployments[route.deployment_id]
        evidence = evidence_of(route, view)
        interval_s = 0.0 if route.health_check is None else route.health_check.interval_s
        found.append(
            Eviction(
                change=change,
                deployment=deployment,
                prober="" if evidence is None else evidence.status.prober,
                seq=0 if evidence is None else evidence.status.seq,
                age_ms=0 if evidence is None else int(evidence.age_s * 1000),
                age_max_ms=status_ttl_s(interval_s) * 1000,
                decided_at_ms=snapshot.now_ms,
                fleet_max=fleet_max,
                own_max=deployment_allowance(deployment.target_count),
            )
        )
    return tuple(found)


def running(routes: Sequence[Route]) -> int:
    """Return how many of these run: what a budget is a share of."""
    return sum(route.status is RouteStatus.RUNNING for route in routes)
