"""A real controller process on a real database, bus and fleet: its start, its end, its rest."""

import json
import signal
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from controller.db.tables import metadata
from controller.embedded import EmbeddedValkey
from controller.service import Service
from probe.wire import Keys, ReplicaId
from tests.fakes.controller import ControllerProcess, run_to_end
from tests.fakes.prober import until
from tests.fakes.surroundings import Surroundings, simulated
from tests.fakes.verbs import EXTERNAL, apply_demo

LOOKS_OFTEN = "record_hold"
"""No handler has a shorter period: at rest the next look at the bus is its next run, in 10 s."""
QUICK = {"max_period_s": 0.2, "first_sync_s": 0}


@pytest.fixture
async def client(bus: EmbeddedValkey) -> AsyncIterator[Redis]:
    async with Redis(unix_socket_path=str(bus.socket_path)) as redis:
        yield redis


@pytest.fixture
def settings(database_url: str, bus: EmbeddedValkey) -> dict[str, Any]:
    return {"database_url": database_url, "redis_url": bus.url} | QUICK


def one_sentence(stderr: bytes) -> str:
    """Return the only line of `stderr`."""
    (line,) = stderr.decode().splitlines()
    assert line.startswith("fleetpulse: ")
    return line


class TestStartErrors:
    @pytest.mark.parametrize(
        ("given", "code", "said"),
        [
            ({"database_url": "{dir}/none.db"}, 3, "create it with `fleetpulse db upgrade`"),
            ({"database_url": "{dir}/none/fleet.db"}, 3, "cannot be opened"),
            ({"database_url": "mysql://ada@db/fleet"}, 2, "'mysql' is not spoken"),
            ({"database_url": ""}, 2, "pass --database"),
            ({"redis_url": "unix://{dir}/no.sock"}, 3, "start it, or name another with --redis"),
            ({"redis_url": "http://localhost"}, 2, "'http'"),
            ({"metrics": "nowhere"}, 2, "controller.metrics = 'nowhere' is not HOST:PORT"),
            ({"lease_s": "0"}, 2, "controller.lease_s"),
            ({"provisioner": "simulated"}, 2, "controller.fleet_socket"),
        ],
    )
    async def test_what_cannot_work_ends_in_one_sentence_with_its_code(
        self,
        settings: dict[str, Any],
        tmp_path: Path,
        given: dict[str, str],
        code: int,
        said: str,
    ) -> None:
        given = {key: value.format(dir=tmp_path) for key, value in given.items()}
        flags = [f"--metrics={given.pop('metrics')}"] if "metrics" in given else []
        ended = await run_to_end(*flags, **settings | given)
        assert ended.returncode == code
        assert said in one_sentence(ended.stderr)

    async def test_a_database_without_a_schema_is_refused_with_the_remedy(
        self, settings: dict[str, Any], tmp_path: Path
    ) -> None:
        empty = tmp_path / "empty.db"
        empty.touch()
        ended = await run_to_end(**settings | {"database_url": str(empty)})
        assert ended.returncode == 3
        assert "run `fleetpulse db upgrade`" in one_sentence(ended.stderr)

    async def test_a_bus_of_another_layout_is_refused(
        self, settings: dict[str, Any], client: Redis
    ) -> None:
        await client.set(Keys().partitions, "65")
        ended = await run_to_end(**settings)
        assert ended.returncode == 2
        assert "65 partitions" in one_sentence(ended.stderr)


class TestOnce:
    async def test_every_handler_runs_once_the_target_sync_too(
        self, settings: dict[str, Any], service: Service, client: Redis
    ) -> None:
        await apply_demo(service, revision=EXTERNAL)
        route = await service.register_route("demo", host="127.0.0.1", port=8000)
        for _ in range(2):  # pending, starting, warming up: a step of a route is a run or two
            ended = await run_to_end("--once", **settings | {"first_sync_s": 3600})
            assert ended.returncode == 0, ended.stderr
        assert await client.exists(Keys().target(ReplicaId(route.id)))

    async def test_once_beside_a_leader_says_so(
        self, settings: dict[str, Any], tmp_path: Path
    ) -> None:
        async with ControllerProcess.running(tmp_path / "log", **settings) as leader:
            await until(leader.leads)
            ended = await run_to_end("--once", **settings)
            assert ended.returncode == 1
            assert "another controller holds the lease" in one_sentence(ended.stderr)
            assert await leader.leads()

    async def test_check_config_needs_no_service(self, tmp_path: Path) -> None:
        nowhere = f"unix://{tmp_path}/no.sock"
        ended = await run_to_end("--check-config", database_url="none.db", redis_url=nowhere)
        assert ended.returncode == 0
        lines = ended.stdout.decode().splitlines()
        assert lines[0] == "[controller]"
        source = "environment FLEETPULSE_CONTROLLER__REDIS_URL"
        assert f"redis_url = {json.dumps(nowhere)}  # {source}" in lines


class TestAmnesia:
    async def test_targets_are_back_at_once_although_no_handler_is_due(
        self, settings: dict[str, Any], service: Service, client: Redis, tmp_path: Path
    ) -> None:
        await apply_demo(service, revision=EXTERNAL)
        route = await service.register_route("demo", host="127.0.0.1", port=8000)
        target = Keys().target(ReplicaId(route.id))

        async def there() -> bool:
            return bool(await client.exists(target))

        for _ in range(2):  # until it has one
            await run_to_end("--once", **settings)
        assert await there()
        del settings["max_period_s"]
        async with ControllerProcess.running(tmp_path / "log", **settings) as controller:

            async def just_looked() -> bool:
                return await controller.metric("reconcile_seconds_count", handler=LOOKS_OFTEN) == 2

            await until(just_looked, within_s=30)
            await client.flushall()
            await until(there, within_s=5)


class TestLeadership:
    async def test_a_standby_takes_over_when_the_leader_is_killed(
        self, settings: dict[str, Any], tmp_path: Path
    ) -> None:
        short = settings | {"lease_s": 1}
        async with (
            ControllerProcess.running(tmp_path / "1.log", **short) as first,
            ControllerProcess.running(tmp_path / "2.log", **short) as second,
        ):
            leader, standby = (first, second) if await first.leads() else (second, first)
            await until(leader.leads)
            assert not await standby.leads()
            assert (await standby.get("/readyz")).status_code == 200
            await leader.end(signal.SIGKILL)
            await until(standby.leads)

    async def test_sigterm_ends_in_order_and_frees_the_lease(
        self, settings: dict[str, Any], tmp_path: Path
    ) -> None:
        long = settings | {"lease_s": 600}
        async with ControllerProcess.running(tmp_path / "1.log", **long) as leader:
            await until(leader.leads)
            async with ControllerProcess.running(tmp_path / "2.log", **long) as standby:
                assert await leader.end() == 0
                await until(standby.leads)
                assert await standby.end(signal.SIGINT) == 0

    async def test_who_lost_the_lease_ends_at_once_and_says_so(
        self, settings: dict[str, Any], database_url: str, tmp_path: Path
    ) -> None:
        """I8"""
        async with ControllerProcess.running(
            tmp_path / "log", **settings | {"lease_s": 1}
        ) as leader:
            await until(leader.leads)
            with closing(sqlite3.connect(database_url.removeprefix("sqlite:///"))) as thief:
                thief.execute("UPDATE leader_lease SET epoch = epoch + 1, holder = 'thief'")
                thief.commit()
            assert await leader.process.wait() == 4
            said = leader.log.read_text().splitlines()[-1]
            assert said.startswith("fleetpulse: ")
            assert "thief leads, in epoch 2" in said
            assert "Traceback" not in leader.log.read_text()


@pytest.fixture
async def around(bus: EmbeddedValkey, tmp_path: Path) -> AsyncIterator[Surroundings]:
    async with Surroundings.running(bus, tmp_path / "prober.log") as running:
        yield running


@pytest.fixture
async def serving(
    settings: dict[str, Any], service: Service, around: Surroundings, tmp_path: Path
) -> AsyncIterator[ControllerProcess]:
    """A controller whose deployment of three simulated replicas is up, with its prober."""
    await apply_demo(service, revision=simulated())
    async with ControllerProcess.running(
        tmp_path / "controller.log", **{**settings, **around.settings, "lease_s": 2}
    ) as controller:

        async def settled() -> bool:
            (deployment,) = await service.list_deployments()
            routes = await service.list_routes()
            return deployment.rollout is None and [r.ready for r in routes] == [True] * 3

        await until(settled, within_s=20)
        yield controller


async def ticks_of(controller: ControllerProcess) -> float:
    return await controller.metric("reconcile_seconds_count", handler="classify_health")


async def rows_written(controller: ControllerProcess) -> float:
    """Return how many rows of the fleet's state were written; the lease is not of it.

    Table by table: a renewal between two looks at a total would count.
    """
    tables = metadata.tables.keys() - {"leader_lease"}
    return sum([await controller.metric("sql_writes_total", table=table) for table in tables])


class TestRunning:
    async def test_a_fleet_at_rest_is_not_written_to(self, serving: ControllerProcess) -> None:
        """I10"""

        async def rested() -> bool:
            """Tell whether ten ticks wrote nothing; what was told of the start may come first."""
            before, ticks = await rows_written(serving), await ticks_of(serving)
            assert before > 0

            async def ticked() -> bool:
                return await ticks_of(serving) >= ticks + 10

            await until(ticked, within_s=20)
            return await rows_written(serving) == before

        await until(rested, within_s=20)
        assert await serving.metric("reconcile_failures_total") == 0
        assert await serving.metric("invariant_violations_total") == 0

    async def test_a_bus_that_goes_away_is_ridden_out(
        self, serving: ControllerProcess, service: Service, bus: EmbeddedValkey, client: Redis
    ) -> None:
        """R-05, I11"""
        before = await service.list_routes()
        bus.kill()

        async def incident() -> bool:
            return await serving.metric("incident_active", kind="bus_unreachable") == 1

        async def over() -> bool:
            return not await incident()

        async def targets_are_back() -> bool:
            return await client.exists(*(Keys().target(ReplicaId(r.id)) for r in before)) == 3

        await until(incident)
        ticks = await ticks_of(serving)

        async def ticked() -> bool:
            return await ticks_of(serving) >= ticks + 10

        await until(ticked, within_s=20)
        assert await serving.metric("bus_errors_total") > 0
        assert (await serving.get("/livez")).status_code == 200
        assert await service.list_routes() == before
        bus.start()
        await until(over)
        await until(targets_are_back)
        assert await service.list_routes() == before
        assert await serving.end() == 0

    async def test_a_database_that_is_held_by_somebody_is_ridden_out(
        self, serving: ControllerProcess, service: Service, database_url: str
    ) -> None:
        """I11"""
        before = await service.list_routes()

        async def noticed() -> bool:
            return (await serving.get("/readyz")).status_code == 503

        async def well() -> bool:
            return (await serving.get("/readyz")).status_code == 200

        with closing(sqlite3.connect(database_url.removeprefix("sqlite:///"))) as holder:
            holder.execute("BEGIN IMMEDIATE")
            await until(noticed, within_s=15)
            assert await serving.metric("database_errors_total") >= 1
            assert (await serving.get("/livez")).status_code == 200
            holder.rollback()
        await until(well)
        assert await serving.leads()
        assert await service.list_routes() == before

    async def test_a_provisioner_that_hangs_costs_no_lease(
        self,
        serving: ControllerProcess,
        around: Surroundings,
        service: Service,
        database_url: str,
    ) -> None:
        """I11: the term is 2 s, and a tick waits for an answer for longer."""
        around.fleet_process.send(signal.SIGSTOP)
        await service.scale("demo", 4)
        with closing(sqlite3.connect(database_url.removeprefix("sqlite:///"))) as onlooker:

            def until_ms() -> int:
                (found,) = onlooker.execute("SELECT expires_at_ms FROM leader_lease").fetchone()
                return int(found)

            first = until_ms()

            async def two_terms_later() -> bool:
                return until_ms() >= first + 4000

            await until(two_terms_later)
        around.fleet_process.send(signal.SIGCONT)

        async def four() -> bool:
            return [route.ready for route in await service.list_routes()] == [True] * 4

        await until(four, within_s=20)
        assert await serving.leads()
        assert await serving.metric("reconcile_failures_total") == 0
