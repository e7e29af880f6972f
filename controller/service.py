"""The operator's verbs: what a person asks of deployments, revisions, rollouts and routes.

Called by the command line and the HTTP API. Each verb is one transaction: it reads the deployment,
refuses what cannot be, and writes the wish with a row of the audit log; carrying it out is the
controller's affair, not known here.
"""

from collections.abc import Collection
from functools import partial
from typing import Final

from sqlalchemy.exc import IntegrityError

from controller.db import activation, applying
from controller.db.applying import DeploymentApplied
from controller.db.asker import Asker
from controller.db.audit import note_verb
from controller.db.deployments import (
    move_deployment,
    numbered,
    revisions_of,
)
from controller.db.named import OPERATOR, changeable, living, to_change
from controller.db.rollout_verbs import RolloutVerbs
from controller.db.rows import settings_values
from controller.db.session import Database
from controller.definition.deployment_file import REPLICAS_MAX
from controller.definition.request import Resolved, RevisionRequest
from controller.errors import Conflict, InvalidInput
from controller.model import (
    Deployment,
    Health,
    Lifecycle,
    Policy,
    Revision,
    RevisionSpec,
    Rollout,
)
from controller.model_folder import ModelFolders
from controller.rollout import strategies

__all__ = ["FORCE_MAX_S", "OPERATOR", "DeploymentApplied", "Service"]

FORCE_MAX_S: Final = 3600
"""Nobody answers for a fleet longer than he looks at it."""


class Service(RolloutVerbs):
    """The verbs, on one database. All raise DatabaseUnreachable when it does not answer.

    A verb given an `expected_version` raises Stale when the deployment is at another one.
    """

    def __init__(self, database: Database, *, folders: ModelFolders | None = None) -> None:
        """Write to `database`; `folders` says which model folders may be named, by default none."""
        super().__init__(database)
        self._folders = ModelFolders() if folders is None else folders

    async def _resolved(self, revision: RevisionRequest | RevisionSpec) -> Resolved:
        """Resolve what is asked for, once, before anything is written; a spec is resolved."""
        if isinstance(revision, RevisionSpec):
            return Resolved(spec=revision, definition=None)
        return await self._folders.resolve(revision)

    async def apply_deployment(
        self,
        name: str,
        *,
        replicas: int,
        policy: Policy,
        cleanup_target_statuses: Collection[Health],
        revision: RevisionRequest | RevisionSpec,
        auto_activate: bool = True,
        actor: str = OPERATOR,
        reason: str = "",
        expected_version: int | None = None,
    ) -> DeploymentApplied:
        """Make the deployment what its file describes; repeating it changes nothing.

        What comes to another revision than the newest becomes a new one. With `auto_activate` the
        newest revision is activated, once: one that was tried and rolled back is left alone.

        Raises:
            InvalidInput: if the count is out of bounds, the policy's strategy has no use for it,
                or the revision comes to nothing that runs.
            Conflict: if the deployment is being deleted, or somebody created it this moment.
        """
        _check_replicas(replicas)
        strategies.check(policy)
        work = partial(
            applying.apply,
            name=name,
            settings=settings_values(replicas, policy, cleanup_target_statuses),
            wanted=await self._resolved(revision),
            auto_activate=auto_activate,
            by=Asker(actor=actor, reason=reason),
            expected_version=expected_version,
        )
        try:
            return await self._database.transact(work, epoch=None)
        except IntegrityError as error:
            raise Conflict(f"deployment {name!r} was created meanwhile; apply it again") from error

    async def scale(
        self,
        name: str,
        replicas: int,
        *,
        actor: str = OPERATOR,
        reason: str = "",
        expected_version: int | None = None,
    ) -> Deployment:
        """Want another count of replicas than the one applied.

        Raises:
            InvalidInput: if the count is out of bounds.
            NotFound: if there is no such deployment.
            Conflict: if it is being deleted.
        """
        _check_replicas(replicas)
        by = Asker(actor=actor, reason=reason)
        async with self._database.write(epoch=None) as write:
            seen = await changeable(write, name, expected_version=expected_version)
            if seen.target_count != replicas:
                await move_deployment(write, seen, {"desired_replicas": replicas})
                message = f"{actor} scaled from {seen.target_count} to {replicas}"
                await activation.record(write, seen, category="scale", message=message)
                detail = {"from": seen.target_count, "to": replicas}
                await note_verb(write, "scale", by, deployment_id=seen.id, detail=detail)
            return await living(write.connection, name)

    async def force(
        self,
        name: str,
        *,
        for_s: float,
        actor: str = OPERATOR,
        reason: str,
        expected_version: int | None = None,
    ) -> Deployment:
        """Let evictions here pass HOLD, breakers and second witnesses for a while (S21).

        Floor, budgets and fresh evidence stay. Zero seconds end it.

        Raises:
            InvalidInput: if the time is out of bounds, or no reason is given.
            NotFound: if there is no such deployment.
            Conflict: if it is being deleted.
        """
        if not 0 <= for_s <= FORCE_MAX_S:
            raise InvalidInput(f"{for_s:g} s: force for 0 to {FORCE_MAX_S} s; 0 ends it")
        if not reason.strip():
            raise InvalidInput("force needs a reason: who reads the log later must know why")
        by = Asker(actor=actor, reason=reason)
        async with self._database.write(epoch=None) as write:
            seen = await changeable(write, name, expected_version=expected_version)
            until_ms = write.now_ms + int(for_s * 1000) if for_s else None
            await move_deployment(write, seen, {"forced_until_ms": until_ms})
            what = f"forced evictions for {for_s:g} s" if for_s else "ended the force"
            await activation.record(write, seen, category="force", message=by.says(what))
            await note_verb(write, "force", by, deployment_id=seen.id, detail={"for_s": for_s})
            return await living(write.connection, name)

    async def delete(
        self,
        name: str,
        *,
        actor: str = OPERATOR,
        reason: str = "",
        expected_version: int | None = None,
    ) -> Deployment:
        """Let the deployment go, with all its replicas; a rollout in flight ends as ABORTED.

        Raises:
            NotFound: if there is no such deployment.
        """
        by = Asker(actor=actor, reason=reason)
        async with self._database.write(epoch=None) as write:
            seen = await to_change(write, name, expected_version=expected_version)
            if seen.lifecycle is not Lifecycle.DESTROYING:
                message = by.says("deleted it")
                await activation.destroy(write, seen, category="delete", message=message)
                await note_verb(write, "delete", by, deployment_id=seen.id)
            return await living(write.connection, name)

    async def add_revision(
        self,
        name: str,
        revision: RevisionRequest | RevisionSpec,
        *,
        auto_activate: bool = False,
        actor: str = OPERATOR,
        reason: str = "",
        expected_version: int | None = None,
    ) -> Revision:
        """Add a revision under the next number, and activate it in the same step when asked.

        Raises:
            InvalidInput: if the revision comes to nothing that can run.
            NotFound: if there is no such deployment.
            Conflict: if it is being deleted.
        """
        wanted = await self._resolved(revision)
        by = Asker(actor=actor, reason=reason)
        async with self._database.write(epoch=None) as write:
            seen = await changeable(write, name, expected_version=expected_version)
            added = await applying.add_revision(write, seen, wanted, actor=actor)
            if auto_activate:
                await activation.activate(write, seen, added, actor=actor)
            await note_verb(
                write,
                "add_revision",
                by,
                deployment_id=seen.id,
                detail={"number": added.number, "activated": auto_activate},
            )
            return added

    async def activate(
        self,
        name: str,
        number: int,
        *,
        actor: str = OPERATOR,
        reason: str = "",
        expected_version: int | None = None,
    ) -> Rollout:
        """Begin to make a revision current; a rollout in flight is superseded.

        Raises:
            NotFound: if there is no such deployment or revision.
            Conflict: if it is current or on its way already, or the deployment is being deleted.
        """
        by = Asker(actor=actor, reason=reason)
        async with self._database.write(epoch=None) as write:
            seen = await changeable(write, name, expected_version=expected_version)
            known = await revisions_of(write.connection, seen.id)
            revision = numbered(known, name=name, number=number)
            await note_verb(write, "activate", by, deployment_id=seen.id, detail={"number": number})
            return await activation.activate(write, seen, revision, actor=actor)


def _check_replicas(replicas: int) -> None:
    if not 0 <= replicas <= REPLICAS_MAX:
        raise InvalidInput(f"{replicas} replicas: give a count from 0 to {REPLICAS_MAX}")
