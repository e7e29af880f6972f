"""Routes of a revision that their deployment does not use any more: who they are, and when they go.

Whoever counts or judges the routes of a deployment leaves them out; `evict` takes them out.
"""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Final

from controller.model import (
    Deployment,
    DeploymentId,
    Revision,
    RevisionId,
    Route,
    RouteChange,
    Snapshot,
)
from controller.route.guard import BusView, HoldCause
from controller.route.leave import leave

CATEGORY: Final = "evict"
ORPHAN: Final = "ORPHAN_REVISION"


def known_revisions(deployment: Deployment) -> dict[RevisionId, Revision]:
    """Return the revisions a route may be of, by id; none while nothing was activated."""
    pointers = (deployment.current, deployment.deploying, deployment.kept)
    return {revision.id: revision for revision in pointers if revision is not None}


def leaving(
    snapshot: Snapshot,
    view: BusView,
    by_deployment: Mapping[DeploymentId, list[Route]],
    *,
    hold: AbstractSet[HoldCause],
    floors: Mapping[DeploymentId, int],
    period_s: float,
) -> tuple[RouteChange, ...]:
    """Return the orphans that go now: under no HOLD, above the floor, after `period_s`.

    Those of a deployment that is not in `floors` stay, and those of one where nothing is in use.
    """
    changes: list[RouteChange] = []
    for deployment_id, routes in by_deployment.items():
        deployment = snapshot.deployments[deployment_id]
        known = known_revisions(deployment)
        held = bool(hold) or not view.reachable
        floor = floors.get(deployment_id)
        if not known or floor is None or (held and not deployment.forced(snapshot.now_ms)):
            continue
        ready = sum(route.serves and route.revision_id in known for route in routes)
        numbers = " and ".join(str(number) for number in sorted(r.number for r in known.values()))
        changes.extend(
            leave(
                route,
                category=CATEGORY,
                message=f"of no revision in use: the deployment's are {numbers}; "
                f"{ready} of their replicas are ready (floor {floor})",
                error_code=ORPHAN,
            )
            for route in routes
            if route.revision_id not in known
            and snapshot.now_ms - route.created_at_ms > period_s * 1000
            and (not route.serves or ready >= floor)
        )
    return tuple(changes)
