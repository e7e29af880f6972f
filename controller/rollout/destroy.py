"""Taking a deployment away: everything drains, and when nothing is left it is gone for good."""

from collections.abc import Sequence

from controller.model import (
    Decision,
    Deployment,
    DeploymentChange,
    Lifecycle,
    Route,
    RouteStatus,
)
from controller.rollout.replicas import drain

CATEGORY = "destroying"
_TERMINAL = (RouteStatus.TERMINATED, RouteStatus.FAILED_TO_START)


def step(deployment: Deployment, routes: Sequence[Route]) -> Decision | None:
    """Return what to drain, or the end, of a deployment in DESTROYING; None: it waits.

    No rollout is in flight any more: whoever sends a deployment to DESTROYING ends it.
    """
    if deployment.lifecycle is not Lifecycle.DESTROYING:
        return None
    active = [route for route in routes if route.active]
    if active:
        message = f"the deployment is being destroyed: {len(active)} replicas drain"
        return Decision(
            deployment=deployment, routes=drain(active, category=CATEGORY, message=message)
        )
    if any(route.status not in _TERMINAL for route in routes):
        return None
    return Decision(
        deployment=deployment,
        change=DeploymentChange(
            category=CATEGORY,
            message="the last replica has ended",
            lifecycle=Lifecycle.DESTROYED,
        ),
    )
