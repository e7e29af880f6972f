"""What `fleetpulse up` runs when it is given deployment files: these, and nothing by itself."""

from collections.abc import Sequence

from controller.definition.deployment_file import DeploymentFile
from controller.model import Snapshot
from controller.service import Service


class Files:
    """The operator of a local stack who applies files, and leaves the rest to the commands."""

    def __init__(self, verbs: Service, files: Sequence[DeploymentFile]) -> None:
        self._verbs = verbs
        self._files = files

    async def begin(self) -> None:
        """Apply the deployments.

        Raises:
            ControllerError: if one cannot be.
        """
        for wanted in self._files:
            await self._verbs.apply_deployment(
                wanted.name,
                replicas=wanted.replicas,
                policy=wanted.policy,
                cleanup_target_statuses=wanted.cleanup_target_statuses,
                revision=wanted.revision,
                auto_activate=wanted.auto_activate,
                actor="up",
            )

    async def go_on(self, snapshot: Snapshot, *, now: float, until: float) -> None:
        """Do nothing: what happens is up to whoever uses the commands."""
