"""`fleetpulse explain` on a real database and bus: what it finds, and what of what is away."""

import json
import os
from collections.abc import Sequence

import anyio
import msgspec
import pytest
from click.testing import CliRunner, Result
from redis.asyncio import Redis

from controller.bus import ControlBus, connect
from controller.cli import main
from controller.db.repository import Repository
from controller.db.session import Database
from controller.embedded import EmbeddedValkey
from controller.errors import InvalidInput
from controller.explaining import explain
from controller.explanation import Explanation
from controller.model import Health, Route
from controller.route.guard import generation_of
from controller.settings import Settings
from probe.wire import PARTITIONS, Keys, OutcomeKind, Reason, ReplicaId, encode
from tests.fakes.database import a_deployment, change, epoch, repository, running_routes
from tests.fakes.entries import BEAT, status

__all__ = ["epoch", "repository"]
"""Fixtures."""


@pytest.fixture(autouse=True)
def _no_blocking_calls() -> None:
    """A command runs beside the test's own loop here."""


@pytest.fixture
async def routes(database: Database, repository: Repository, epoch: int) -> Sequence[Route]:
    deployment = await a_deployment(database)
    made = await running_routes(repository, deployment, 3, epoch=epoch)
    placed = [change(r, host="127.0.0.1", port=8000, session_id="s") for r in made]
    await repository.apply(placed, epoch=epoch)
    return (await repository.observe()).routes


async def said_on(bus: EmbeddedValkey, *routes: Route, failures: int) -> None:
    """Let a living prober say that each of `routes` failed so often."""
    keys = Keys()
    async with Redis.from_url(bus.url) as client:
        seconds, _ = await client.time()
        beat = msgspec.structs.replace(
            BEAT, instance="prober-1", partitions=tuple(range(PARTITIONS)), at=float(seconds)
        )
        await client.set(keys.heartbeat("prober-1"), encode(beat), ex=15)
        await client.zadd(keys.probers, {"prober-1": seconds})
        await client.set(keys.epoch, "e")
        for route in routes:
            found = status(
                replica_id=ReplicaId(route.id),
                healthy=False,
                outcome=OutcomeKind.FAILED,
                reason=Reason.CONNECT_REFUSED,
                consecutive_failures=failures,
                generation=generation_of(route),
                last_check=seconds - 3.0,
                prober="prober-1",
            )
            await client.set(keys.status(ReplicaId(route.id)), encode(found), ex=120)


async def explained(database: Database, named: str, bus: EmbeddedValkey | None) -> Explanation:
    control = None if bus is None else ControlBus(connect(bus.url))
    try:
        return await explain(database, control, named, settings=Settings())
    finally:
        if control is not None:
            await control.aclose()


def typed(*arguments: str) -> Result:
    without = {name: None for name in os.environ if name.startswith("FLEETPULSE_")}
    return CliRunner().invoke(main, ["explain", *arguments], env=without, prog_name="fleetpulse")


async def in_a_thread(*arguments: str) -> Result:
    """Run the command beside this loop: it has one of its own."""
    return await anyio.to_thread.run_sync(lambda: typed(*arguments))


async def test_a_route_is_told_with_its_last_probe_and_counter(
    database: Database, routes: Sequence[Route], bus: EmbeddedValkey
) -> None:
    """R-55"""
    await said_on(bus, *routes, failures=4)
    told = await explained(database, routes[0].id, bus)
    assert "4 of 10 failures in a row before UNHEALTHY (max_retries)" in told.text
    assert "s ago by prober-1: CONNECT_REFUSED" in told.text
    assert told.rule is not None
    assert told.rule.category == "check_warming_up"


async def test_a_bus_that_is_away_is_part_of_the_answer(
    database: Database, routes: Sequence[Route], bus: EmbeddedValkey
) -> None:
    """R-05"""
    bus.kill()
    told = await explained(database, routes[0].id, bus)
    assert told.state == "running, healthy, traffic active"
    assert "the bus cannot be read" in told.unseen
    assert "told from the database alone" in told.text


async def test_what_the_leader_alone_sees_is_told_from_its_record(
    database: Database,
    repository: Repository,
    routes: Sequence[Route],
    epoch: int,
    bus: EmbeddedValkey,
) -> None:
    """R-55, S19: no look from outside sees a clock step; the leader's HOLD is on record."""
    await said_on(bus, *routes, failures=0)
    await repository.record_holds({None: "clocks"}, epoch=epoch)
    told = await explained(database, routes[0].id, bus)
    assert [gate.name for gate in told.gates] == ["HOLD clocks"]


@pytest.mark.parametrize(
    ("alone", "said"),
    [(False, "the last HOLD ended"), (True, "the deployment's own HOLD has just ended")],
    ids=["the fleet's", "its own"],
)
async def test_a_hold_that_is_just_over_still_keeps_from_eviction(
    database: Database,
    repository: Repository,
    routes: Sequence[Route],
    epoch: int,
    bus: EmbeddedValkey,
    *,
    alone: bool,
    said: str,
) -> None:
    """R-55, S21"""
    await said_on(bus, *routes[1:], failures=0)
    await said_on(bus, routes[0], failures=99)
    await repository.apply([change(routes[0], health=Health.UNHEALTHY)], epoch=epoch)
    whose = routes[0].deployment_id if alone else None
    await repository.record_holds({whose: "clocks"}, epoch=epoch)
    await repository.record_holds({}, epoch=epoch)
    told = await explained(database, routes[0].id, bus)
    assert "closing" in [gate.name for gate in told.gates]
    assert said in told.text
    assert "else it is taken out for good, once nothing holds that" in told.text


async def test_a_deployment_goes_by_its_name(database: Database, routes: Sequence[Route]) -> None:
    told = await explained(database, "demo", None)
    assert (told.kind, told.id) == ("deployment", routes[0].deployment_id)
    assert "3 of 3 of revision 1 ready" in told.text


async def test_a_route_goes_by_how_its_id_begins(
    database: Database, routes: Sequence[Route]
) -> None:
    last = routes[-1].id
    assert (await explained(database, last.upper(), None)).id == last
    with pytest.raises(InvalidInput) as refused:
        await explained(database, last[:8], None)
    assert all(route.id in str(refused.value) for route in routes)


async def test_the_command_exits_as_promised(
    database_url: str, routes: Sequence[Route], bus: EmbeddedValkey
) -> None:
    where = ("--database", database_url, "--redis", bus.url)
    told = await in_a_thread(routes[0].id, *where)
    assert (told.exit_code, told.stdout.splitlines()[0]) == (
        0,
        f"route {routes[0].id} of demo, revision 1",
    )
    facts = json.loads((await in_a_thread(routes[0].id, *where, "--json")).stdout)
    assert facts["unseen"].startswith("nobody looks")
    assert facts["lines"][0]["topic"] == "state"
    assert (await in_a_thread("nobody", *where)).exit_code == 1
    assert (await in_a_thread("00000000", *where)).exit_code == 2
    assert (await in_a_thread("demo", "--database", "sqlite:////nowhere/f.db")).exit_code == 3
    assert (await in_a_thread("demo")).exit_code == 2
