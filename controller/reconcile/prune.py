"""Forgetting what is past its time, a bounded number of rows each run."""

from controller.db.prune import Pruner
from controller.reconcile.handler import FleetHandler, Schedule, World


class Prune(FleetHandler):
    """History and ended routes are kept for as long as the settings say."""

    name = "prune"

    def __init__(self, pruner: Pruner, schedule: Schedule) -> None:
        super().__init__(schedule)
        self._pruner = pruner

    async def commit(self, world: World, *, epoch: int) -> int:
        """Remove the oldest of what is too old; there is always a next run."""
        return await self._pruner.run(now_ms=world.snapshot.now_ms, epoch=epoch)
