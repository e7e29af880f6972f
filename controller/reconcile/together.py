"""A group of tasks that one expected error ends, and that hands on just this error.

Used by the daemon and by a term of leadership: whoever starts them wants the sentence with its
exit code, not a group with it somewhere inside.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from anyio.abc import TaskGroup

from controller.errors import ControllerError
from probe.errors import FleetpulseError


@asynccontextmanager
async def together() -> AsyncIterator[TaskGroup]:
    """Run tasks together; what ends one of them on purpose comes out as itself, not in a group."""
    try:
        async with anyio.create_task_group() as group:
            yield group
    except ExceptionGroup as errors:
        meant: Exception | None = errors.subgroup((ControllerError, FleetpulseError))
        while isinstance(meant, ExceptionGroup):
            meant = meant.exceptions[0]
        if meant is None:
            raise
        raise meant from None
