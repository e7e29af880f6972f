"""A provisioner that hangs: who waits for it, for how long, and what its late answers are worth."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace

import anyio
import pytest

from controller.db.repository import Repository
from controller.errors import ProvisionError
from controller.model import Deployment, Route, RouteId, RouteStatus, Stage
from controller.provision.patient import Patience, PatientProvisioner
from controller.provision.port import Order, Session, SessionState
from controller.reconcile.provision import CheckRunning, CheckStarting, Provision
from tests.fakes.database import running_routes
from tests.fakes.fleet import an_order
from tests.fakes.nouns import NOW_MS, a_route, warming
from tests.fakes.provisioner import FakeProvisioner
from tests.fakes.reconcile import ALWAYS, EachRoute, Ticks, a_world, degrade

PATIENCE_S = 0.05
WITHIN_S = 10.0


class HangingProvisioner(FakeProvisioner):
    """Answers when `hangs` is over; counts how many calls are inside."""

    def __init__(self) -> None:
        super().__init__()
        self.hangs = anyio.Event()
        self.inside = 0

    async def start(self, orders: Sequence[Order]) -> Mapping[RouteId, str | ProvisionError]:
        await self._hang()
        return await super().start(orders)

    async def inspect(self, routes: Sequence[Route]) -> Mapping[RouteId, Session]:
        await self._hang()
        return await super().inspect(routes)

    async def stop(self, routes: Sequence[Route]) -> Mapping[RouteId, ProvisionError | None]:
        await self._hang()
        return await super().stop(routes)

    async def _hang(self) -> None:
        self.inside += 1
        try:
            await self.hangs.wait()
        finally:
            self.inside -= 1


class Term:
    """A hanging provisioner, and the patience with it; `late` ends when it answered late."""

    def __init__(self) -> None:
        self.provisioner = HangingProvisioner()
        self.answered = anyio.Event()
        self.patience = Patience(self.provisioner, on_late=self._late, patience_s=PATIENCE_S)

    def _late(self) -> None:
        self.answered.set()

    def view(self) -> PatientProvisioner:
        return self.patience.view()

    async def wake(self) -> None:
        """Let the provisioner answer, and wait until everybody could know."""
        self.provisioner.hangs.set()
        with anyio.fail_after(WITHIN_S):
            await self.answered.wait()
        self.provisioner.hangs = anyio.Event()
        self.answered = anyio.Event()


@pytest.fixture
async def term() -> AsyncIterator[Term]:
    made = Term()
    yield made
    await made.patience.close()
    assert made.provisioner.inside == 0


def pending(number: int) -> Route:
    return warming(number, stage=Stage.PENDING, session_id=None)


async def test_nobody_waits_longer_than_patience_lasts(term: Term) -> None:
    view = term.view()
    with anyio.fail_after(WITHIN_S), pytest.raises(ProvisionError, match=r"within 0\.05 s"):
        await view.inspect([a_route(1)])


async def test_at_most_one_call_of_a_handler_is_in_flight(term: Term) -> None:
    view, other = term.view(), term.view()
    for _ in range(3):
        with pytest.raises(ProvisionError):
            await view.inspect([a_route(1)])
    assert term.provisioner.inside == 1
    with pytest.raises(ProvisionError):
        await other.inspect([a_route(1)])
    assert term.provisioner.inside == 2


async def test_what_comes_late_counts_at_the_next_run(term: Term) -> None:
    view, route = term.view(), a_route(1)
    with pytest.raises(ProvisionError):
        await view.inspect([route])
    await term.wake()
    found = await view.inspect([route])
    assert found[route.id].state is SessionState.MISSING
    assert term.provisioner.calls == ["inspect"], "not asked twice"


async def test_a_route_that_came_meanwhile_is_asked_about_with_the_late_answers_kept(
    term: Term,
) -> None:
    view, early, late = term.view(), a_route(1), a_route(2)
    with pytest.raises(ProvisionError):
        await view.inspect([early])
    await term.wake()
    assert (await view.inspect([early, late])).keys() == {early.id}
    assert term.provisioner.inside == 1
    await term.wake()
    assert (await view.inspect([late])).keys() == {late.id}


async def test_an_answer_in_time_is_just_an_answer(term: Term) -> None:
    term.provisioner.hangs.set()
    view, order = term.view(), an_order(a_route(1))
    assert await view.start([order]) == {order.route.id: f"fake-{order.route.id}"}
    assert await view.stop([order.route]) == {order.route.id: None}
    assert not term.answered.is_set()


async def test_a_late_failure_is_told_once_and_then_asked_again(term: Term) -> None:
    view, route = term.view(), a_route(1)
    term.provisioner.away = True
    with pytest.raises(ProvisionError):
        await view.inspect([route])
    await term.wake()
    with pytest.raises(ProvisionError, match="the fake provisioner is away"):
        await view.inspect([route])
    term.provisioner.away = False
    term.provisioner.hangs.set()
    assert (await view.inspect([route])).keys() == {route.id}


async def test_what_may_start_any_moment_is_not_stopped_yet(term: Term) -> None:
    """Stopping it now would find nothing, and leave it running for ever."""
    starter, stopper = term.view(), term.view()
    order = an_order(a_route(1))
    with pytest.raises(ProvisionError):
        await starter.start([order])
    (answer,) = (await stopper.stop([order.route])).values()
    assert str(answer) == "the provisioner has not answered yet"
    await term.wake()
    term.provisioner.hangs.set()
    assert order.route.id in term.provisioner.sessions
    assert await stopper.stop([order.route]) == {order.route.id: None}
    assert term.provisioner.sessions == {}


class TestHandlers:
    async def test_a_route_without_an_answer_is_neither_started_nor_refused(
        self, term: Term
    ) -> None:
        handler = Provision(term.view(), ALWAYS, timeout_s=3600.0)
        first, second = pending(1), pending(2)
        with pytest.raises(ProvisionError):
            await handler.decide(a_world([first]), [first])
        await term.wake()
        plan = await handler.decide(a_world([first, second]), [first, second])
        assert [(change.route.id, change.stage) for change in plan.changes] == [
            (first.id, Stage.STARTING)
        ]

    async def test_a_session_nobody_answered_for_is_not_lost(self, term: Term) -> None:
        for handler, route, other in (
            (CheckRunning(term.view(), ALWAYS), a_route(1), a_route(2)),
            (
                CheckStarting(term.view(), ALWAYS, timeout_s=60.0),
                warming(1, stage=Stage.STARTING),
                warming(2, stage=Stage.STARTING),
            ),
        ):
            with pytest.raises(ProvisionError):
                await handler.decide(a_world([route]), [route])
            await term.wake()
            plan = await handler.decide(a_world([route, other]), [route, other])
            assert [change.route.id for change in plan.changes] == [route.id]
            assert plan.changes[0].status is RouteStatus.TERMINATING
            await term.wake()

    async def test_nobody_stays_pending_for_ever(self, term: Term) -> None:
        """It leaves by way of a stop: it may have been started all the same."""
        handler = Provision(term.view(), ALWAYS, timeout_s=60.0)
        old = replace(pending(1), entered_at_ms=NOW_MS - 60_001)
        young = replace(pending(2), entered_at_ms=NOW_MS - 60_000)
        for _ in range(2):
            plan = await handler.decide(a_world([old, young]), [old, young])
            assert [(c.route.id, c.stage, c.error_code) for c in plan.changes] == [
                (old.id, Stage.DRAINING, "PENDING_EXPIRED")
            ]
        with pytest.raises(ProvisionError):
            await handler.decide(a_world([young]), [young])


async def test_a_hanging_provisioner_stops_no_other_handler(
    ticks: Ticks, repository: Repository, deployment: Deployment, term: Term, epoch: int
) -> None:
    """R-15"""
    running = await running_routes(repository, deployment, 2, epoch=epoch)
    others = EachRoute(degrade)
    ticks.of(CheckRunning(term.view(), ALWAYS), others)
    with anyio.fail_after(WITHIN_S):
        assert await ticks.runner.tick(epoch=epoch) == 2
        ticks.now_s += 1.0
        await ticks.runner.tick(epoch=epoch)
    assert others.runs == 2
    assert term.provisioner.inside == 1
    note = (await repository.history_of(deployment.id))[0]
    assert (note.category, note.error_code) == ("check_running", "ProvisionError")
    routes = (await repository.observe()).routes
    assert {route.id for route in routes} == {route.id for route in running}
    assert all(route.status is RouteStatus.RUNNING for route in routes)
