"""Keeping the replica count of a deployment at rest; called by check_replicas.

READY only: while a deployment is DEPLOYING its count is the rollout's affair (R-30).
"""

from collections.abc import Iterator, Sequence

from controller.model import Decision, Deployment, Lifecycle, Revision, Route, RouteId
from controller.rollout.backoff import BackOff
from controller.rollout.counting import termination_order
from controller.rollout.replicas import create, drain, waiting

CATEGORY = "check_replicas"


def missing(deployment: Deployment, routes: Sequence[Route]) -> int:
    """Return how many replicas are to be made; none where the count is not kept here."""
    current = _kept(deployment)
    return 0 if current is None else deployment.target_count - len(_active(current, routes))


def step(
    deployment: Deployment,
    routes: Sequence[Route],
    *,
    fresh: Iterator[RouteId],
    wait: BackOff | None = None,
) -> Decision | None:
    """Return the replicas to create or to drain for one deployment; None: the count is right.

    `routes` are the deployment's that are not terminal. Only the current revision's count: what
    is left of others is eviction's affair. Replicas registered by hand are never touched. With
    `wait` the last ones ended early, and none is made now.
    """
    current = _kept(deployment)
    if current is None:
        return None
    mine = _active(current, routes)
    surplus = len(mine) - deployment.target_count
    if surplus == 0:
        return None
    why = (
        f"{len(mine)} replicas of revision {current.number} active, "
        f"{deployment.target_count} wanted"
    )
    if surplus < 0 and wait is not None:
        message = f"backing off: {why}; {wait.message}"
        note = waiting(deployment, category=CATEGORY, message=message)
        return Decision(deployment=deployment, notes=(note,))
    if surplus < 0:
        new = create(deployment, current, -surplus, fresh=fresh, message=f"scaling out: {why}")
        return Decision(deployment=deployment, create=new)
    # Those that serve least go first, so none that serves goes while one that does not is left.
    gone = termination_order(mine)[:surplus]
    return Decision(
        deployment=deployment,
        routes=drain(gone, category=CATEGORY, message=f"scaling in: {why}"),
    )


def _kept(deployment: Deployment) -> Revision | None:
    """Return the revision whose count is kept here."""
    if deployment.lifecycle is not Lifecycle.READY or deployment.current is None:
        return None
    return None if deployment.current.spec.external else deployment.current


def _active(current: Revision, routes: Sequence[Route]) -> list[Route]:
    return [route for route in routes if route.active and route.revision_id == current.id]
