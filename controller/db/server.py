"""What a kind of database tells about itself; `session` knows no other difference between them.

Implemented by `sqlite` and `postgres`.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from enum import Enum, auto

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from controller.errors import Conflict, ControllerError


class Purpose(Enum):
    """What a transaction is opened for."""

    READ = auto()
    WRITE = auto()
    MIGRATE = auto()
    """Changes the schema: alone among its kind, and allowed to take long."""


class StoodInTheWay(Conflict):
    """Two transactions waited for each other, and this one was undone: run it again."""


class Server(ABC):
    """One kind of database at one address."""

    engine: AsyncEngine
    pool_size: int

    def __init__(self, shown: str) -> None:
        """Prepare; `shown` is the address as people may see it, without its password."""
        self.shown = shown

    @abstractmethod
    def options(self, purpose: Purpose) -> Mapping[str, object]:
        """Return the execution options of a transaction for `purpose`."""

    @abstractmethod
    async def begun(self, connection: AsyncConnection, purpose: Purpose) -> None:
        """Bound the transaction that just began; nothing of it outlives the transaction."""

    @abstractmethod
    def told(self, error: DBAPIError | OSError) -> ControllerError:
        """Return what went wrong as one sentence with a remedy."""
