"""Routes and revisions for tests of what runs replicas, and a fleet that ends with its test."""

import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

from controller.model import (
    DeploymentId,
    Health,
    HealthCheck,
    Revision,
    RevisionId,
    RevisionSpec,
    Route,
    RouteId,
    RouteStatus,
    Stage,
    Traffic,
)
from controller.provision.fleet.client import FleetClient
from controller.provision.fleet.process import running_fleet
from controller.provision.port import Order

DEPLOYMENT = DeploymentId("d0000000-0000-4000-8000-000000000000")
REVISION = RevisionId("e0000000-0000-4000-8000-000000000000")


def a_route(*, host: str | None = None, port: int | None = None) -> Route:
    """Return a route that waits for a replica."""
    return Route(
        id=RouteId(str(uuid4())),
        deployment_id=DEPLOYMENT,
        revision_id=REVISION,
        status=RouteStatus.PROVISIONING,
        stage=Stage.PENDING,
        health=Health.NOT_CHECKED,
        traffic=Traffic.INACTIVE,
        traffic_ratio=0.0,
        health_check=None,
        session_id=None,
        host=host,
        port=port,
        created_at_ms=0,
        entered_at_ms=0,
        ready_since_ms=None,
        version=1,
    )


def an_order(
    route: Route, *, environment: Mapping[str, str] | None = None, path: str = "/health"
) -> Order:
    """Return the order for `route`; it loads in no time unless `environment` says otherwise."""
    spec = RevisionSpec(
        environment={"SIM_LOAD_S": "0", **(environment or {})},
        health_check=HealthCheck(path=path),
    )
    revision = Revision(id=REVISION, deployment_id=DEPLOYMENT, number=1, spec=spec, definition=None)
    return Order(route=route, revision=revision)


@asynccontextmanager
async def a_fleet() -> AsyncIterator[FleetClient]:
    """Run a real fleet process in a private directory; pytest's own are too deep for a socket."""
    with tempfile.TemporaryDirectory(prefix="fp") as directory:
        socket = Path(directory) / "fleet"
        async with running_fleet(socket):
            client = FleetClient(socket)
            try:
                yield client
            finally:
                await client.close()
        assert not socket.exists(), "the fleet left its socket behind"
