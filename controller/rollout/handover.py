"""Whose traffic is whose when a rollout is begun in the place of another; asked by `activation`.

What the superseded one had shared out goes back to what serves, in the moment it ends: its own
replicas are orphans from then on, and leave without a share.
"""

from collections.abc import Iterable, Iterator

from controller.model import Deployment, Revision, Route, RouteChange, RouteStatus, Traffic
from controller.rollout.endings import FORWARD
from controller.rollout.strategies import strategy_of


def shares(
    deployment: Deployment, revision: Revision, routes: Iterable[Route]
) -> Iterator[RouteChange]:
    """Yield what changes for the traffic when a rollout of `revision` supersedes the one in flight.

    Replicas of a strategy that lets them serve as they come keep what they have: they stand for
    old ones that left. So do all where no revision is current: there is nothing to go back to.
    """
    rollout, current = deployment.rollout, deployment.current
    if rollout is None or current is None or strategy_of(rollout.policy).serves_at_once:
        return
    number = revision.number
    for route in routes:
        if route.status is not RouteStatus.RUNNING:
            continue
        if route.revision_id == current.id:
            if route.traffic_ratio < 1:
                why = f"revision {current.number} serves alone again: revision {number} is next"
                yield _share(route, 1.0, why)
        elif route.traffic_ratio > 0:
            yield _share(route, 0.0, f"its rollout is superseded by one of revision {number}")


def _share(route: Route, ratio: float, why: str) -> RouteChange:
    traffic = None if ratio else Traffic.INACTIVE
    return RouteChange(
        route=route,
        category=FORWARD,
        message=why,
        status=route.status,
        traffic=traffic,
        traffic_ratio=ratio,
    )
