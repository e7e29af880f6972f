"""What check_replicas is told of replicas that ended early, without a database."""

from collections.abc import Collection, Mapping, Sequence

from controller.db.failures import Failures
from controller.model import DeploymentId
from controller.rollout.backoff import Failure


class KnownFailures(Failures):
    """Says what it was given; remembers who asked."""

    def __init__(self, known: Mapping[DeploymentId, Sequence[Failure]] | None = None) -> None:
        self.known = known or {}
        self.asked: list[list[DeploymentId]] = []

    async def of(
        self, ids: Collection[DeploymentId], *, since_ms: int
    ) -> Mapping[DeploymentId, Sequence[Failure]]:
        self.asked.append([*ids])
        return {key: self.known[key] for key in ids if key in self.known}
