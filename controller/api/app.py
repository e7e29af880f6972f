"""The application: every path with what it needs, behind the gate.

Built by the daemon, and by tests without one. Knows no socket and no process.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

import anyio
from litestar import Litestar
from litestar.config.app import AppConfig
from litestar.di import Provide
from litestar.exceptions import HTTPException
from litestar.openapi import OpenAPIConfig

from controller.api import (
    deployments,
    description,
    discovery,
    events,
    operator_pages,
    page,
    rollouts,
    routes,
)
from controller.api.description import CONFIG, Described
from controller.api.events import Followers
from controller.api.gate import Access, Gate
from controller.api.problems import of_ours, of_router, unforeseen
from controller.api.routing import Explains, guard, provide_by
from controller.db.feed import Feed
from controller.db.publications import Publications
from controller.db.session import Database
from controller.errors import ControllerError
from controller.service import Service
from probe import ops

BODY_MAX_BYTES: Final = 1_048_576
MODULES: Final = (
    deployments,
    rollouts,
    routes,
    discovery,
    events,
    page,
    description,
    operator_pages,
)
"""Each with its HANDLERS."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the API stands on."""

    pages: ops.Pages
    verbs: Service
    database: Database
    """Of its own, so that who asks much keeps no handler from its connection."""
    standing: page.StandingNow
    explained: Explains


class Api:
    """The application, and its streams that must be ended before it."""

    def __init__(self, parts: Parts, access: Access) -> None:
        self._database = parts.database
        feed = Feed(parts.database)
        self.followers = Followers(feed)
        provided: dict[str, Callable[[], Any]] = {
            "pages": lambda: parts.pages,
            "verbs": lambda: parts.verbs,
            "feed": lambda: feed,
            "published": lambda: Publications(parts.database),
            "followers": lambda: self.followers,
            "standing": lambda: parts.standing,
            "explained": lambda: parts.explained,
            "described": lambda: self.described,
        }
        self.described = Described(lambda: _application(provided, MODULES, openapi=CONFIG))
        self.app = _application(provided, MODULES)
        self.gate = Gate(self.app, access)

    async def close(self) -> None:
        """Let go of the database, once nobody asks any more."""
        with anyio.CancelScope(shield=True):
            await self._database.close()


def only_pages(pages: ops.Pages, access: Access) -> Gate:
    """Return an application that shows how this process does, and nothing else."""
    return Gate(_application({"pages": lambda: pages}, [operator_pages]), access)


def _application(
    parts: dict[str, Callable[[], Any]],
    modules: Iterable[Any],
    *,
    openapi: OpenAPIConfig | None = None,
) -> Litestar:
    provided: dict[str, Any] = {
        name: Provide(part, sync_to_thread=False) for name, part in parts.items()
    }
    provided["by"] = Provide(provide_by, sync_to_thread=False)
    config = AppConfig(
        route_handlers=[handler for module in modules for handler in module.HANDLERS],
        dependencies=provided,
        exception_handlers={
            ControllerError: of_ours,
            HTTPException: of_router,
            Exception: unforeseen,
        },
        guards=[guard],
        logging_config=None,
        openapi_config=openapi,
        request_max_body_size=BODY_MAX_BYTES,
    )
    return Litestar.from_config(config)
