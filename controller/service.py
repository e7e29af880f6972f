"""The operator's verbs: what a person asks of deployments, revisions, rollouts and routes.

Called by the command line and the HTTP API. Each verb is one transaction: it reads the deployment,
refuses what cannot be, and writes the wish with a row of the audit log; carrying it out is the
controller's affair, not known here.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from sqlalchemy.exc import IntegrityError

from controller.db import activation, registration
from controller.db.audit import note_verb
from controller.db.deployments import (
    find_to_change,
    insert_deployment,
    insert_revision,
    move_deployment,
    numbered,
    revisions_of,
)
from controller.db.named import changeable, check_version, living, to_change
from controller.db.reads import Reads
from controller.db.rollouts import rollouts_of
from controller.db.rows import Values, settings_of, settings_values
from controller.db.session import Database, Write
from controller.definition.deployment_file import REPLICAS_MAX
from controller.definition.request import Resolved, RevisionRequest
from controller.errors import Conflict, InvalidInput
from controller.model import (
    Deployment,
    Health,
    Lifecycle,
    Outcome,
    Policy,
    Revision,
    RevisionSpec,
    Rollout,
    Route,
    SubStep,
)
from controller.model_folder import ModelFolders

OPERATOR: Final = "operator"
"""Who did it, where nobody says who."""

FORCE_MAX_S: Final = 3600
"""Nobody answers for a fleet longer than he looks at it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentApplied:
    """What `apply_deployment` came to."""

    deployment: Deployment
    changes: tuple[str, ...]
    """What it did, in words; empty when everything was as wanted already."""


class Service(Reads):
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
        A count set by `scale` holds until another count is applied.

        Raises:
            InvalidInput: if the count is out of bounds, or the revision comes to nothing that runs.
            Conflict: if the deployment is being deleted, or somebody created it this moment.
        """
        _check_replicas(replicas)
        settings = settings_values(replicas, policy, cleanup_target_statuses)
        wanted = await self._resolved(revision)

        async def work(write: Write) -> DeploymentApplied:
            changes = await _apply_settings(
                write, name, settings, actor=actor, expected_version=expected_version
            )
            deployment = await changeable(write, name)
            newest = next(iter(await revisions_of(write.connection, deployment.id)), None)
            if newest is None or not wanted.is_like(newest):
                newest = await _next_revision(write, deployment, newest, wanted, actor=actor)
                changes.append(f"added revision {newest.number}")
            if auto_activate and not await activation.was_tried(write, newest):
                await activation.activate(write, deployment, newest, actor=actor)
                changes.append(f"activated revision {newest.number}")
            if changes:
                detail = {"changes": changes}
                about = deployment.id
                await note_verb(
                    write,
                    "apply",
                    actor=actor,
                    reason=reason,
                    deployment_id=about,
                    detail=detail,
                )
            found = await living(write.connection, name)
            return DeploymentApplied(deployment=found, changes=tuple(changes))

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
        async with self._database.write(epoch=None) as write:
            seen = await changeable(write, name, expected_version=expected_version)
            if seen.target_count != replicas:
                await move_deployment(write, seen, {"desired_replicas": replicas})
                message = f"{actor} scaled from {seen.target_count} to {replicas}"
                await activation.record(write, seen, category="scale", message=message)
                detail = {"from": seen.target_count, "to": replicas}
                await note_verb(
                    write,
                    "scale",
                    actor=actor,
                    reason=reason,
                    deployment_id=seen.id,
                    detail=detail,
                )
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
        async with self._database.write(epoch=None) as write:
            seen = await changeable(write, name, expected_version=expected_version)
            until_ms = write.now_ms + int(for_s * 1000) if for_s else None
            await move_deployment(write, seen, {"forced_until_ms": until_ms})
            what = f"forced evictions for {for_s:g} s" if for_s else "ended the force"
            message = f"{actor} {what}: {reason}"
            await activation.record(write, seen, category="force", message=message)
            await note_verb(
                write,
                "force",
                actor=actor,
                reason=reason,
                deployment_id=seen.id,
                detail={"for_s": for_s},
            )
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
        async with self._database.write(epoch=None) as write:
            seen = await to_change(write, name, expected_version=expected_version)
            if seen.lifecycle is not Lifecycle.DESTROYING:
                message = f"{actor} deleted it" + (f": {reason}" if reason else "")
                await activation.destroy(write, seen, category="delete", message=message)
                await note_verb(write, "delete", actor=actor, reason=reason, deployment_id=seen.id)
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
        async with self._database.write(epoch=None) as write:
            seen = await changeable(write, name, expected_version=expected_version)
            newest = next(iter(await revisions_of(write.connection, seen.id)), None)
            added = await _next_revision(write, seen, newest, wanted, actor=actor)
            if auto_activate:
                await activation.activate(write, seen, added, actor=actor)
            await note_verb(
                write,
                "add_revision",
                actor=actor,
                reason=reason,
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
        async with self._database.write(epoch=None) as write:
            seen = await changeable(write, name, expected_version=expected_version)
            known = await revisions_of(write.connection, seen.id)
            revision = numbered(known, name=name, number=number)
            await note_verb(
                write,
                "activate",
                actor=actor,
                reason=reason,
                deployment_id=seen.id,
                detail={"number": number},
            )
            return await activation.activate(write, seen, revision, actor=actor)

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
            NotFound: if there is no such deployment.
            Conflict: if there is no rollout to abort.
        """
        message = f"{actor} aborted it" + (f": {reason}" if reason else "")
        async with self._database.write(epoch=None) as write:
            seen = await to_change(write, name, expected_version=expected_version)
            if seen.rollout is None:
                newest = await rollouts_of(write.connection, seen.id, limit=1)
                if not newest or newest[0].outcome is not Outcome.ABORTED:
                    raise Conflict(f"deployment {name!r} has no rollout in flight to abort")
            elif seen.sub_step is not SubStep.ROLLING_BACK:
                await activation.abort(write, seen, seen.rollout, message=message)
                await note_verb(write, "abort", actor=actor, reason=reason, deployment_id=seen.id)
            return await living(write.connection, name)

    async def register_route(
        self,
        name: str,
        *,
        host: str,
        port: int,
        actor: str = OPERATOR,
        reason: str = "",
        expected_version: int | None = None,
    ) -> Route:
        """Add a replica that somebody else runs; it is probed, and serves once it is healthy.

        It belongs to the revision being rolled out; without one, or on the way back, to the
        current one.

        Raises:
            InvalidInput: if host or port cannot be dialled.
            NotFound: if there is no such deployment.
            Conflict: if the deployment runs its own replicas, has no revision to join, is being
                deleted, or has a replica at that address already.
        """
        registration.check_address(host, port)
        async with self._database.write(epoch=None) as write:
            seen = await changeable(write, name, expected_version=expected_version)
            route = await registration.register(write, seen, host=host, port=port, actor=actor)
            await note_verb(
                write,
                "register",
                actor=actor,
                reason=reason,
                deployment_id=seen.id,
                route_id=route.id,
                detail={"host": host, "port": port},
            )
            return route


async def _apply_settings(
    write: Write, name: str, wanted: Values, *, actor: str, expected_version: int | None
) -> list[str]:
    """Create the deployment, or change what differs; return what was done, in words."""
    seen = await find_to_change(write, name)
    check_version(name, seen, expected_version)
    if seen is None:
        await insert_deployment(write, name=name, settings=wanted)
        made = await to_change(write, name)
        await activation.record(write, made, category="apply", message=f"{actor} created it")
        return ["created"]
    if seen.lifecycle is Lifecycle.DESTROYING:
        raise Conflict(f"deployment {name!r} is being deleted; wait until it is gone")
    known = settings_of(seen)
    moved: Values = {key: value for key, value in wanted.items() if known[key] != value}
    if not moved:
        return []
    words = [f"changed {key}" for key in moved]
    if "replicas" in moved:
        moved["desired_replicas"] = None
    await move_deployment(write, seen, moved)
    message = f"{actor} {', '.join(words)}"
    await activation.record(write, seen, category="apply", message=message)
    return words


async def _next_revision(
    write: Write, seen: Deployment, newest: Revision | None, wanted: Resolved, *, actor: str
) -> Revision:
    number = 1 if newest is None else newest.number + 1
    revision = await insert_revision(
        write, seen.id, number=number, spec=wanted.spec, definition=wanted.definition
    )
    message = f"{actor} added revision {number}"
    await activation.record(write, seen, category="add_revision", message=message)
    return revision


def _check_replicas(replicas: int) -> None:
    if not 0 <= replicas <= REPLICAS_MAX:
        raise InvalidInput(f"{replicas} replicas: give a count from 0 to {REPLICAS_MAX}")
