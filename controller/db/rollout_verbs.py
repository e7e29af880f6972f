"""The operator's verbs on rollouts in flight, and on what the last one left.

Each is one transaction. Repeating one changes nothing: what it answers then has no changes.
"""

from collections.abc import Awaitable, Callable

from controller.db import steering
from controller.db.applying import DeploymentApplied
from controller.db.audit import note_verb
from controller.db.named import OPERATOR, changeable, living, to_change
from controller.db.route_verbs import RouteVerbs
from controller.db.session import Write
from controller.db.steering import Asker
from controller.model import Deployment

_Work = Callable[[Write, Deployment, Asker], Awaitable[str]]


class RolloutVerbs(RouteVerbs):
    """All raise DatabaseUnreachable when the database does not answer, NotFound for no deployment.

    Given an `expected_version` they raise Stale when the deployment is at another one.
    """

    async def pause_rollout(
        self,
        name: str,
        *,
        actor: str = OPERATOR,
        reason: str = "",
        expected_version: int | None = None,
    ) -> DeploymentApplied:
        """Stop the rollout in flight where it is, and its clocks.

        Raises:
            Conflict: if there is none, or it is rolling back.
        """
        by = Asker(actor=actor, reason=reason)
        return await self._steer("pause", steering.pause, name, by, expected_version)

    async def resume_rollout(
        self,
        name: str,
        *,
        actor: str = OPERATOR,
        reason: str = "",
        expected_version: int | None = None,
    ) -> DeploymentApplied:
        """Let a paused rollout go on; the time it stood does not count.

        Raises:
            Conflict: if there is none.
        """
        by = Asker(actor=actor, reason=reason)
        return await self._steer("resume", steering.resume, name, by, expected_version)

    async def promote_rollout(
        self,
        name: str,
        *,
        actor: str = OPERATOR,
        reason: str = "",
        expected_version: int | None = None,
    ) -> DeploymentApplied:
        """Let the new revision have all traffic now, without further delay.

        Raises:
            Conflict: if there is nothing to promote, or not all of it is ready.
        """
        by = Asker(actor=actor, reason=reason)
        return await self._steer("promote", steering.promote, name, by, expected_version)

    async def retry_rollout(
        self,
        name: str,
        *,
        actor: str = OPERATOR,
        reason: str = "",
        expected_version: int | None = None,
    ) -> DeploymentApplied:
        """Begin a new rollout to the revision that the newest one gave up.

        Raises:
            Conflict: if the newest one was not given up.
        """
        by = Asker(actor=actor, reason=reason)
        return await self._steer(steering.RETRY, steering.retry, name, by, expected_version)

    async def rollback(
        self,
        name: str,
        *,
        actor: str = OPERATOR,
        reason: str = "",
        expected_version: int | None = None,
    ) -> DeploymentApplied:
        """Go back to what served before: abort the rollout in flight, or begin one that returns.

        Raises:
            Conflict: if nothing served before.
        """
        by = Asker(actor=actor, reason=reason)
        return await self._steer(steering.ROLLBACK, steering.roll_back, name, by, expected_version)

    async def abort(
        self,
        name: str,
        *,
        actor: str = OPERATOR,
        reason: str = "",
        expected_version: int | None = None,
    ) -> Deployment:
        """Turn the rollout in flight back; repeating it changes nothing.

        A deployment that never had a current revision is destroyed instead (R-39).

        Raises:
            Conflict: if there is no rollout to abort.
        """
        by = Asker(actor=actor, reason=reason)
        async with self._database.write(epoch=None) as write:
            seen = await to_change(write, name, expected_version=expected_version)
            if await steering.abort(write, seen, by):
                await note_verb(write, "abort", actor=actor, reason=reason, deployment_id=seen.id)
            return await living(write.connection, name)

    async def _steer(
        self, verb: str, work: _Work, name: str, by: Asker, expected_version: int | None
    ) -> DeploymentApplied:
        async def steer(write: Write) -> DeploymentApplied:
            seen = await changeable(write, name, expected_version=expected_version)
            did = await work(write, seen, by)
            if did:
                await note_verb(
                    write, verb, actor=by.actor, reason=by.reason, deployment_id=seen.id
                )
            found = await living(write.connection, name)
            return DeploymentApplied(deployment=found, changes=(did,) if did else ())

        return await self._database.transact(steer, epoch=None)
