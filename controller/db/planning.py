"""What a plan is made of: a deployment, the revision to roll out, its routes, and the times.

Used by `reads`, and by the command line for a file that nothing was made of yet.
"""

from collections.abc import Sequence
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from controller.db.deployments import numbered, revisions_of
from controller.db.named import living
from controller.db.rows import route_of, select_routes
from controller.db.tables import LIVE, routes
from controller.errors import Conflict, InvalidInput
from controller.model import Deployment, Lifecycle, Revision, Route
from controller.rollout.plan import Timings, plan, starts_in_s
from controller.rollout.planned import RolloutPlan
from controller.settings import PERIODS, Settings

STARTS_IN_MAX_S: Final = 30 * 86_400
"""As long as a rollout may take at all."""

Material = tuple[Deployment, Revision, tuple[Route, ...]]


async def material(connection: AsyncConnection, name: str, number: int) -> Material:
    """Return a deployment, one of its revisions, and its routes that have not ended.

    Raises:
        NotFound: if there is no such deployment or revision.
    """
    found = await living(connection, name)
    revision = numbered(await revisions_of(connection, found.id), name=name, number=number)
    query = select_routes(routes.c.status.in_(LIVE), routes.c.deployment_id == found.id)
    return found, revision, tuple(map(route_of, await connection.execute(query)))


def planned(
    deployment: Deployment,
    revision: Revision,
    seen: Sequence[Route],
    *,
    starts_in: float | None = None,
) -> RolloutPlan:
    """Return how a rollout of `revision` would go, at worst.

    Raises:
        InvalidInput: if a replica cannot take that long, or there are too many steps.
        Conflict: if the revision is current already, or the deployment is being deleted.
    """
    if starts_in is not None and not 0 <= starts_in <= STARTS_IN_MAX_S:
        raise InvalidInput(
            f"{starts_in:g} s: a replica is ready in 0 to {STARTS_IN_MAX_S} s; write for example 5m"
        )
    if deployment.lifecycle is Lifecycle.DESTROYING:
        raise Conflict(f"deployment {deployment.name!r} is being deleted; wait until it is gone")
    if deployment.current is not None and deployment.current.id == revision.id:
        raise Conflict(
            f"revision {revision.number} of deployment {deployment.name!r} is current already; "
            "nothing to plan"
        )
    timings = Timings(
        starts_in_s=starts_in_s(revision) if starts_in is None else starts_in,
        grace_s=Settings().termination_grace_s,
        period_s=PERIODS["deploying"].long_s,
    )
    return plan(deployment, revision, routes=seen, timings=timings)
