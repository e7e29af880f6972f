"""How the last replicas ended, over rows in memory."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

from controller.db.failures import Failures
from controller.model import DeploymentId
from controller.rollout.backoff import Failure
from controller.simulate.rows import Rows
from controller.simulate.tables import LOST


class MemoryFailures(Failures):
    """How the last replicas ended, read from rows in memory."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    async def of(
        self, ids: Collection[DeploymentId], *, since_ms: int
    ) -> Mapping[DeploymentId, Sequence[Failure]]:
        """Return the failures of each deployment's current revision since then."""
        found: defaultdict[DeploymentId, list[Failure]] = defaultdict(list)
        if not ids:
            return found
        await self._rows.reach()
        tables = self._rows.tables
        for key in sorted(ids):
            current = tables.deployments[key].current
            for route_id, at_ms, message in tables.faults.get(key, ()):
                route = tables.routes.get(route_id) or tables.ended[route_id]
                mine = current is not None and route.revision_id == current.id
                if mine and route.status in LOST and route.created_at_ms >= since_ms:
                    found[key].append(
                        Failure(
                            created_at_ms=route.created_at_ms, failed_at_ms=at_ms, reason=message
                        )
                    )
        return found
