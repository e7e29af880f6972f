"""Deployments as a person names them: found, or refused in a sentence that says where to look.

Used by the operator's verbs, inside their transaction.
"""

from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from controller.db.deployments import find_deployments, find_to_change
from controller.db.session import Write
from controller.db.tables import deployments
from controller.errors import Conflict, NotFound, Stale
from controller.model import Deployment, Lifecycle

OPERATOR: Final = "operator"
"""Who did it, where nobody says who."""


async def living(connection: AsyncConnection, name: str) -> Deployment:
    """Return a deployment to look at.

    Raises:
        NotFound: if there is none of that name.
    """
    found = await find_deployments(connection, deployments.c.name == name)
    if not found:
        raise _unknown(name)
    return found[0]


async def to_change(write: Write, name: str, *, expected_version: int | None = None) -> Deployment:
    """Return a deployment to change, at the version expected where one is.

    Raises:
        NotFound: if there is none of that name.
        Stale: if it is at another version.
    """
    found = await find_to_change(write, name)
    if found is None:
        raise _unknown(name)
    check_version(name, found, expected_version)
    return found


async def changeable(write: Write, name: str, *, expected_version: int | None = None) -> Deployment:
    """Return a deployment to change that is not on its way out (R-38).

    Raises:
        NotFound: if there is none of that name.
        Stale: if it is at another version than expected.
        Conflict: if it is being deleted.
    """
    found = await to_change(write, name, expected_version=expected_version)
    if found.lifecycle is Lifecycle.DESTROYING:
        raise Conflict(f"deployment {name!r} is being deleted; wait until it is gone")
    return found


def check_version(name: str, seen: Deployment | None, expected_version: int | None) -> None:
    """Refuse what was decided on another version than the present one.

    Raises:
        Stale: if it was.
    """
    present = None if seen is None else seen.version
    if expected_version not in (None, present):
        stands = "there is none" if present is None else f"it is at version {present}"
        raise Stale(
            f"deployment {name!r} was to be at version {expected_version}, {stands}; "
            "look again and decide anew"
        )


def _unknown(name: str) -> NotFound:
    return NotFound(f"there is no deployment {name!r}; see `fleetpulse deployment list`")
