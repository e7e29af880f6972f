"""What a person writes down of a deployment, brought about: its settings, and the next revision.

Used by `controller.service`, inside its transaction.
"""

from dataclasses import dataclass

from controller.db import activation
from controller.db.asker import Asker
from controller.db.audit import note_verb
from controller.db.deployments import (
    find_to_change,
    insert_deployment,
    insert_revision,
    move_deployment,
    revisions_of,
)
from controller.db.named import changeable, check_version, living, to_change
from controller.db.rows import Values, settings_of
from controller.db.session import Write
from controller.definition.request import Resolved
from controller.errors import Conflict
from controller.model import Deployment, Lifecycle, Revision


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentApplied:
    """What `apply_deployment` came to."""

    deployment: Deployment
    changes: tuple[str, ...]
    """What it did, in words; empty when everything was as wanted already."""


async def apply(
    write: Write,
    *,
    name: str,
    settings: Values,
    wanted: Resolved,
    auto_activate: bool,
    by: Asker,
    expected_version: int | None,
) -> DeploymentApplied:
    """Make the deployment what its file says.

    A count set by `scale` holds until another count is applied.

    Raises:
        Conflict: if it is being deleted.
    """
    changes = await _apply_settings(
        write, name, settings, actor=by.actor, expected_version=expected_version
    )
    seen = await changeable(write, name)
    newest = next(iter(await revisions_of(write.connection, seen.id)), None)
    if newest is None or not wanted.is_like(newest):
        newest = await add_revision(write, seen, wanted, actor=by.actor)
        changes.append(f"added revision {newest.number}")
    if auto_activate and not await activation.was_tried(write, newest):
        await activation.activate(write, seen, newest, actor=by.actor)
        changes.append(f"activated revision {newest.number}")
    if changes:
        detail = {"changes": changes}
        await note_verb(write, "apply", by, deployment_id=seen.id, detail=detail)
    found = await living(write.connection, name)
    return DeploymentApplied(deployment=found, changes=tuple(changes))


async def add_revision(write: Write, seen: Deployment, wanted: Resolved, *, actor: str) -> Revision:
    """Add a revision under the next number."""
    newest = next(iter(await revisions_of(write.connection, seen.id)), None)
    number = 1 if newest is None else newest.number + 1
    revision = await insert_revision(
        write, seen.id, number=number, spec=wanted.spec, definition=wanted.definition
    )
    message = f"{actor} added revision {number}"
    await activation.record(write, seen, category="add_revision", message=message)
    return revision


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
