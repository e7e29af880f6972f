"""The servers of the contract suites: one of each kind per test process, emptied for each test."""

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from controller.embedded import EmbeddedValkey
from tests.fakes.bus_servers import Fleet
from tests.fakes.database import (  # noqa: F401 - fixtures of the tests beside
    database,
    database_template,
    deployment,
    epoch,
    repository,
    service,
)
from tests.fakes.databases import database_url, dialect, empty_url  # noqa: F401 - the same
from tests.fakes.postgres import (  # noqa: F401 - the same
    empty_postgres_url,
    postgres_databases,
    postgres_url,
)
from tests.fakes.services import SERVERS, Services


@pytest.fixture(scope="session")
def services() -> Iterator[Services]:
    running = Services()
    yield running
    running.close()


@pytest.fixture(scope="session")
def fleet() -> Iterator[Fleet]:
    with tempfile.TemporaryDirectory(prefix="fp-") as directory:
        running = Fleet(Path(directory))
        yield running
        running.close()


@pytest.fixture(params=SERVERS)
def server_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def server(services: Services, server_name: str) -> EmbeddedValkey:
    return services.bus(server_name)


@pytest.fixture
async def client(server: EmbeddedValkey) -> AsyncIterator[Redis]:
    """A plain client for arranging and looking, on an empty server."""
    redis = Redis.from_url(server.url)
    await redis.flushall()
    await redis.config_set("maxmemory", 0)
    yield redis
    await redis.config_set("maxmemory", 0)
    await redis.aclose()
