"""A term of leadership: what renews it, what ends it, and what may happen only within it."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import cast

import anyio
import pytest

from controller.db.repository import Repository
from controller.db.session import Database
from controller.errors import LeaseLost
from controller.lease import MARGIN_S, RETRY_S, Lease
from controller.metrics import ControllerMetrics
from controller.model import Decision, Deployment, Route
from controller.reconcile.handler import Plan, World
from controller.reconcile.leadership import Leadership
from controller.reconcile.outbox import Deliverer
from controller.reconcile.pulse import STUCK_S, Pulse
from controller.reconcile.runner import Runner
from controller.reconcile.term import Term
from tests.fakes.database import a_deployment, expire_lease, new_routes, some_routes
from tests.fakes.prober import until
from tests.fakes.reconcile import EachRoute, Ticks, nothing

LEASE_S = 0.6
"""Renewed every 0.2 s."""


class Time:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Parts:
    """What a term is made of; the runner is a test's, and there is no bus to listen to."""

    def __init__(self, database: Database, ticks: Ticks) -> None:
        self.lease = Lease(database, holder="leader", lease_s=LEASE_S)
        self.time = Time()
        self.metrics = ControllerMetrics()
        self.pulse = Pulse(self.metrics, clock=self.time)
        self._database = database
        self._ticks = ticks

    @property
    def runner(self) -> Runner:
        return self._ticks.runner

    async def listen(self) -> None:
        await anyio.sleep_forever()

    async def term(self) -> Term:
        epoch = await self.lease.acquire()
        assert epoch is not None
        return Term(
            cast("Leadership", self),
            Deliverer(
                {}, database=self._database, metrics=self.metrics, epoch=epoch, clock=self.time
            ),
            lease=self.lease,
            epoch=epoch,
            lease_s=LEASE_S,
            repository=Repository(self._database),
            metrics=self.metrics,
            pulse=self.pulse,
        )


@pytest.fixture
def parts(database: Database, ticks: Ticks) -> Parts:
    return Parts(database, ticks)


class Hanging(EachRoute):
    """Waits for a provisioner that says nothing, for as long as `takes_s` of the test's time."""

    def __init__(self, time: Time, *, takes_s: float = 0.0) -> None:
        super().__init__(nothing)
        self.reached = anyio.Event()
        self._time = time
        self._takes_s = takes_s

    async def decide(self, world: World, routes: Sequence[Route]) -> Plan:
        self.reached.set()
        self._time.now += self._takes_s
        await anyio.sleep_forever()
        raise AssertionError("woken")


@pytest.fixture
async def a_route(repository: Repository, deployment: Deployment, database: Database) -> None:
    """One route, so that a handler has something to decide."""
    lease = Lease(database, holder="another test's")
    epoch = await lease.acquire()
    assert epoch is not None
    await some_routes(repository, deployment, 1, epoch=epoch)
    await lease.release()


@asynccontextmanager
async def running(term: Term) -> AsyncIterator[None]:
    async with anyio.create_task_group() as group:
        group.start_soon(term.run)
        yield
        group.cancel_scope.cancel()


async def lease_is_free(database: Database) -> bool:
    return await Lease(database, holder="onlooker")._held_for_s() == 0


@pytest.mark.usefixtures("a_route")
async def test_a_handler_that_hangs_is_renewed_for(
    parts: Parts, ticks: Ticks, database: Database
) -> None:
    """I8, I11"""
    hanging = Hanging(parts.time)
    ticks.of(hanging)
    async with running(await parts.term()):
        await hanging.reached.wait()
        for _ in range(5):
            await anyio.sleep(LEASE_S / 2)
            assert not await lease_is_free(database)


@pytest.mark.usefixtures("a_route")
async def test_a_loop_that_does_not_come_round_gives_the_lease_up(
    parts: Parts, ticks: Ticks
) -> None:
    ticks.of(Hanging(parts.time, takes_s=STUCK_S + 1))
    term = await parts.term()
    with pytest.raises(LeaseLost, match="the reconcile loop is 61 s late"), anyio.fail_after(10):
        await term.run()
    assert parts.pulse.stuck() is not None


async def test_no_handler_begins_after_the_lease_is_anothers(
    parts: Parts, ticks: Ticks, database: Database
) -> None:
    """I8: a session that the next leader has ended must not be started again."""
    handler = EachRoute(nothing)
    ticks.of(handler)
    term = await parts.term()
    await expire_lease(database)
    assert await Lease(database, holder="next").acquire() is not None
    parts.lease.doubt()
    with pytest.raises(LeaseLost, match="next leads, in epoch"), anyio.fail_after(10):
        await term.run()
    assert handler.runs == 0


async def test_a_lease_that_ran_out_and_that_nobody_took_goes_on_in_its_epoch(
    parts: Parts, ticks: Ticks, database: Database
) -> None:
    """I8: a refused write is not yet a lost lease."""
    deployment = await a_deployment(database)
    repository = Repository(database)
    handler = EachRoute(nothing)
    ticks.of(handler)
    async with running(await parts.term()):
        epoch = parts.lease.epoch
        await expire_lease(database)
        with pytest.raises(LeaseLost):
            await repository.commit(
                Decision(deployment=deployment, create=new_routes(deployment, 1)), epoch=epoch or 0
            )

        async def held_again() -> bool:
            return not await lease_is_free(database)

        await until(held_again)
        assert parts.lease.epoch == epoch


async def test_a_standby_waits_no_longer_than_the_lease_lasts(database: Database) -> None:
    leader = Lease(database, holder="leader", lease_s=1)
    standby = Lease(database, holder="standby")
    await leader.acquire()
    assert await standby.acquire() is None
    assert 0 < standby.pause_s <= 1 + MARGIN_S
    await leader.release()
    assert await standby.acquire() == 2


async def test_a_standby_looks_often_enough_for_a_lease_that_is_given_up(
    database: Database,
) -> None:
    await Lease(database, holder="leader", lease_s=600).acquire()
    standby = Lease(database, holder="standby")
    await standby.acquire()
    assert standby.pause_s == RETRY_S


async def test_a_standby_only_reads_while_another_leads(database: Database) -> None:
    await Lease(database, holder="leader", lease_s=600).acquire()
    before = database.sql_writes["leader_lease"]
    assert await Lease(database, holder="standby").acquire() is None
    assert database.sql_writes["leader_lease"] == before


async def test_a_lease_is_sure_only_while_nobody_else_can_have_taken_it(
    database: Database,
) -> None:
    time = Time()
    lease = Lease(database, holder="leader", lease_s=15, clock=time)
    sure = [lease.sure]
    await lease.acquire()
    sure.append(lease.sure)
    time.now += 15
    sure.append(lease.sure)
    await lease.renew()
    sure.append(lease.sure)
    await lease.release()
    sure.append(lease.sure)
    assert sure == [False, True, False, True, False]
