"""The port to whatever runs replicas; the reconcile handlers call it, the adapters fill it.

Every call takes many routes at once, so that a fleet costs one round trip, and answers for each
of them: one route that fails never stops the others, and a call ends by itself, within a minute
or so. A call that raises has learnt nothing, and nothing may change on account of it: ignorance
is not absence. An adapter knows sessions and addresses; it knows nothing of stages, health or
rollouts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from controller.errors import ProvisionError
from controller.model import Revision, Route, RouteId


class SessionState(StrEnum):
    """What the provisioner says of one session."""

    PENDING = "pending"
    """Accepted; has no address yet."""
    RUNNING = "running"
    """Has an address. Says nothing about health: that is the prober's affair."""
    EXITED = "exited"
    """Ended, and will not come back by itself."""
    MISSING = "missing"
    """The provisioner answered, and knows no such session."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """What a provisioner runs for one route; host and port are set exactly while RUNNING."""

    id: str
    """Empty when MISSING."""
    state: SessionState
    host: str | None = None
    port: int | None = None
    exit_reason: str = ""
    """Why it is EXITED or MISSING, for a person; empty otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A replica wanted: the route it is for, and what it runs."""

    route: Route
    revision: Revision


class Provisioner(Protocol):
    """Start, inspect and stop replicas."""

    async def start(self, orders: Sequence[Order]) -> Mapping[RouteId, str | ProvisionError]:
        """Start a session for each order; return its id, or why it was refused.

        Idempotent by route id: a route that has a session already gets that one's id, so that a
        controller that died before it wrote the id down may ask again.

        Raises:
            ProvisionError: if the provisioner cannot be asked; some sessions may have started.
        """
        ...

    async def inspect(self, routes: Sequence[Route]) -> Mapping[RouteId, Session]:
        """Return the session of every route asked about, MISSING where there is none.

        Raises:
            ProvisionError: if the provisioner cannot be asked.
        """
        ...

    async def stop(self, routes: Sequence[Route]) -> Mapping[RouteId, ProvisionError | None]:
        """Stop the session of every route; None where there is none left, else why it remains.

        Idempotent: stopping what is gone, or never was, succeeds.

        Raises:
            ProvisionError: if the provisioner cannot be asked; some sessions may have stopped.
        """
        ...

    async def close(self) -> None:
        """Let go of connections; sessions live on."""
        ...
