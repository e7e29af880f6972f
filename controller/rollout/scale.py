"""Keeping the replica count of a deployment at rest; called by check_replicas.

READY only: while a deployment is DEPLOYING its count is the rollout's affair (R-30).
"""

from collections.abc import Iterator, Sequence

from controller.model import Decision, Deployment, Lifecycle, Route, RouteId
from controller.rollout.replicas import create, drain
from controller.rollout.rolling import termination_order

CATEGORY = "check_replicas"


def step(
    deployment: Deployment, routes: Sequence[Route], *, fresh: Iterator[RouteId]
) -> Decision | None:
    """Return the replicas to create or to drain for one deployment; None: the count is right.

    `routes` are the deployment's that are not terminal. Only the current revision's count: what
    is left of others is eviction's affair. Replicas registered by hand are never touched.
    """
    current = deployment.current
    if deployment.lifecycle is not Lifecycle.READY or current is None or current.spec.external:
        return None
    mine = [route for route in routes if route.active and route.revision_id == current.id]
    target = deployment.target_count
    surplus = len(mine) - target
    if surplus == 0:
        return None
    why = f"{len(mine)} replicas of revision {current.number} active, {target} wanted"
    if surplus < 0:
        new = create(deployment, current, -surplus, fresh=fresh, message=f"scaling out: {why}")
        return Decision(deployment=deployment, create=new)
    gone = termination_order(mine)[:surplus]
    return Decision(
        deployment=deployment,
        routes=drain(gone, category=CATEGORY, message=f"scaling in: {why}"),
    )
