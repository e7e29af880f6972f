"""The operator's verbs on rollouts in flight, and on what the last one left.

Each is one transaction. Repeating one changes nothing: what it answers then has no changes.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from controller.db import steering
from controller.db.applying import DeploymentApplied
from controller.db.asker import Asker, RolloutVerb
from controller.db.audit import note_verb
from controller.db.named import OPERATOR, changeable, living, to_change
from controller.db.route_verbs import RouteVerbs
from controller.db.session import Write
from controller.model import Deployment

_WORK: Final[Mapping[RolloutVerb, Callable[[Write, Deployment, Asker], Awaitable[str]]]] = {
    RolloutVerb.PAUSE: steering.pause,
    RolloutVerb.RESUME: steering.resume,
    RolloutVerb.PROMOTE: steering.promote,
    RolloutVerb.RETRY: steering.retry,
    RolloutVerb.ROLLBACK: steering.roll_back,
}


class RolloutVerbs(RouteVerbs):
    """All raise DatabaseUnreachable when the database does not answer, NotFound for no deployment.

    Given an `expected_version` they raise Stale when the deployment is at another one.
    """

    async def steer(
        self,
        name: str,
        verb: RolloutVerb,
        *,
        actor: str = OPERATOR,
        reason: str = "",
        expected_version: int | None = None,
    ) -> DeploymentApplied:
        """Do to a rollout what `verb` says.

        Raises:
            Conflict: if there is nothing to do it to; the sentence says what to do instead.
        """
        by = Asker(actor=actor, reason=reason)

        async def work(write: Write) -> DeploymentApplied:
            seen = await changeable(write, name, expected_version=expected_version)
            did = await _WORK[verb](write, seen, by)
            if did:
                await note_verb(write, verb.value, by, deployment_id=seen.id)
            found = await living(write.connection, name)
            return DeploymentApplied(deployment=found, changes=(did,) if did else ())

        return await self._database.transact(work, epoch=None)

    async def abort(
        self,
        name: str,
        *,
        actor: str = OPERATOR,
        reason: str = "",
        expected_version: int | None = None,
    ) -> Deployment:
        """Turn the rollout in flight back.

        A deployment that never had a current revision is destroyed instead (R-39).

        Raises:
            Conflict: if there is no rollout to abort.
        """
        by = Asker(actor=actor, reason=reason)
        async with self._database.write(epoch=None) as write:
            seen = await to_change(write, name, expected_version=expected_version)
            if await steering.abort(write, seen, by):
                await note_verb(write, "abort", by, deployment_id=seen.id)
            return await living(write.connection, name)
