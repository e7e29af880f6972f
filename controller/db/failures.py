"""Replicas that ended early, read from history; used by check_replicas for its back-off."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from sqlalchemy import select

from controller.db.bulk import chunks
from controller.db.session import Database
from controller.db.tables import deployments, history, routes
from controller.model import DeploymentId, RouteStatus
from controller.rollout.backoff import Failure

FAULTS: Final = (
    "PROVISION_REFUSED",
    "SESSION_LOST",
    "NO_ADDRESS",
    "PENDING_EXPIRED",
    "STARTING_EXPIRED",
    "WARM_UP_EXPIRED",
)
"""What a replica's own end is called; nobody asked for it to go."""
_ENDED: Final = (
    RouteStatus.TERMINATING.value,
    RouteStatus.TERMINATED.value,
    RouteStatus.FAILED_TO_START.value,
)


class Failures:
    """Reads them on one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def of(
        self, ids: Collection[DeploymentId], *, since_ms: int
    ) -> Mapping[DeploymentId, Sequence[Failure]]:
        """Return the failures of each deployment's current revision since then.

        Nothing asked means no I/O (R-04).

        Raises:
            DatabaseUnreachable: if the database does not answer.
        """
        found: defaultdict[DeploymentId, list[Failure]] = defaultdict(list)
        if not ids:
            return found
        query = (
            select(
                routes.c.deployment_id,
                routes.c.created_at_ms,
                history.c.created_at_ms,
                history.c.message,
            )
            .join(history, history.c.subject == routes.c.id)
            .join(deployments, deployments.c.current_revision_id == routes.c.revision_id)
            .where(
                routes.c.status.in_(_ENDED),
                routes.c.created_at_ms >= since_ms,
                history.c.error_code.in_(FAULTS),
            )
        )
        async with self._database.read() as connection:
            for chunk in chunks(ids):
                rows = await connection.execute(query.where(routes.c.deployment_id.in_(chunk)))
                for deployment_id, created_at_ms, failed_at_ms, message in rows:
                    found[deployment_id].append(
                        Failure(
                            created_at_ms=created_at_ms, failed_at_ms=failed_at_ms, reason=message
                        )
                    )
        return found
