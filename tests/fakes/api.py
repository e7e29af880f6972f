"""The API in a test: in the same process without a socket, as whoever the test wants to be."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

import httpx
from prometheus_client import CollectorRegistry

from controller.api.access import OPERATOR, Tokens
from controller.api.app import Api, Parts
from controller.api.gate import Access
from controller.api.page import Standing
from controller.db.session import Database
from controller.explaining import explain
from controller.service import Service
from controller.settings import Settings
from probe import ops

TOKENS: Final = {"ada": "ada-token-0123456789", "vic": "vic-token-0123456789"}
"""Ada is an operator, Vic a viewer."""
STANDING: Final = Standing(leads=True, trouble=None, hold=())


def pages() -> ops.Pages:
    """Return pages of a process that is well."""
    return ops.Pages(CollectorRegistry(), live=lambda: None, ready=lambda: None)


def tokens_file(directory: Path) -> Path:
    """Write the tokens of `TOKENS`."""
    path = directory / "tokens"
    path.write_text(f"ada operator {TOKENS['ada']}\nvic viewer {TOKENS['vic']}\n")
    path.chmod(0o600)
    return path


def an_api(database: Database, *, tokens: Path | None = None, standing: Standing = STANDING) -> Api:
    """Return the API on a database; with `tokens` it asks who is there."""
    access = Access(
        tokens=None if tokens is None else Tokens(tokens, clock=time.monotonic),
        loopback=True,
        anonymous=OPERATOR,
    )
    parts = Parts(
        pages=pages(),
        verbs=Service(database),
        database=database,
        standing=lambda: standing,
        explained=partial(
            explain, database, None, settings=Settings(database_url="of-no-interest")
        ),
    )
    return Api(parts, access)


@asynccontextmanager
async def asking(api: Api, *, token: str | None = None) -> AsyncIterator[httpx.AsyncClient]:
    """Open a client that asks the API without a socket."""
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    transport = httpx.ASGITransport(api.gate, raise_app_exceptions=True)  # type: ignore[arg-type] # litestar's own types of ASGI
    async with httpx.AsyncClient(
        transport=transport, base_url="http://localhost", headers=headers
    ) as client:
        yield client
