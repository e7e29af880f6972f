"""What every provisioner promises, held against the fake and all real ones."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from controller.errors import ProvisionError
from controller.model import Route
from controller.provision.external import ExternalProvisioner
from controller.provision.fleet.client import FleetClient
from controller.provision.port import Order, Provisioner, SessionState
from controller.provision.simulated import SimulatedProvisioner
from tests.fakes.fleet import a_fleet, a_route, an_order
from tests.fakes.processes import a_process_order, processes
from tests.fakes.provisioner import FakeProvisioner


@dataclass(frozen=True)
class Subject:
    """A provisioner under test, and how to make it refuse."""

    provisioner: Provisioner
    external: bool = False
    process: bool = False
    fake: FakeProvisioner | None = None

    def good(self) -> Order:
        if self.process:
            return a_process_order()
        return an_order(a_route(host="127.64.0.9", port=8000) if self.external else a_route())

    def refused(self) -> Order:
        if self.external:
            return an_order(a_route())
        if self.process:
            return a_process_order("fleetpulse-no-such-command")
        order = an_order(a_route(), environment={"SIM_REFUSE": "no room"})
        if self.fake is not None:
            self.fake.refuse[order.route.id] = "no room"
        return order


@pytest.fixture(params=["fake", "simulated", "process", "external"])
async def subject(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Subject]:
    async with AsyncExitStack() as stack:
        if request.param == "fake":
            fake = FakeProvisioner()
            made = Subject(fake, fake=fake)
        elif request.param == "simulated":
            made = Subject(SimulatedProvisioner(await stack.enter_async_context(a_fleet())))
        elif request.param == "process":
            made = Subject(stack.enter_context(processes(tmp_path)), process=True)
        else:
            made = Subject(ExternalProvisioner(), external=True)
        yield made
        await made.provisioner.close()


async def test_a_started_replica_runs_at_an_address(subject: Subject) -> None:
    order = subject.good()
    session_id = (await subject.provisioner.start([order]))[order.route.id]
    session = (await subject.provisioner.inspect([order.route]))[order.route.id]
    assert session.state is SessionState.RUNNING
    assert session.id == session_id
    assert session.host is not None
    assert session.port is not None


async def test_starting_twice_gives_the_same_session(subject: Subject) -> None:
    order = subject.good()
    first = await subject.provisioner.start([order])
    before = await subject.provisioner.inspect([order.route])
    assert await subject.provisioner.start([order]) == first
    assert await subject.provisioner.inspect([order.route]) == before


async def test_one_refusal_does_not_stop_the_others(subject: Subject) -> None:
    good, bad, also_good = subject.good(), subject.refused(), subject.good()
    answers = await subject.provisioner.start([good, bad, also_good])
    assert isinstance(answers[bad.route.id], ProvisionError)
    assert str(answers[bad.route.id])
    assert isinstance(answers[good.route.id], str)
    assert isinstance(answers[also_good.route.id], str)
    session = (await subject.provisioner.inspect([bad.route]))[bad.route.id]
    assert session.state is SessionState.MISSING
    assert session.exit_reason


async def test_every_route_asked_about_is_answered_for(subject: Subject) -> None:
    started, never = subject.good(), a_route()
    await subject.provisioner.start([started])
    sessions = await subject.provisioner.inspect([never, started.route])
    assert sessions.keys() == {never.id, started.route.id}
    assert sessions[never.id].state is SessionState.MISSING
    assert sessions[never.id].host is None


async def test_each_replica_has_an_address_of_its_own(subject: Subject) -> None:
    if subject.external:
        pytest.skip("whoever registers a route chooses its address")
    orders = [subject.good() for _ in range(20)]
    await subject.provisioner.start(orders)
    sessions = await subject.provisioner.inspect([order.route for order in orders])
    assert len({(session.host, session.port) for session in sessions.values()}) == 20


async def test_stopping_is_idempotent_and_covers_what_never_was(subject: Subject) -> None:
    order, never = subject.good(), a_route()
    await subject.provisioner.start([order])
    both: list[Route] = [order.route, never]
    assert await subject.provisioner.stop(both) == {order.route.id: None, never.id: None}
    assert await subject.provisioner.stop(both) == {order.route.id: None, never.id: None}
    if not subject.external:  # what others run, we do not end
        session = (await subject.provisioner.inspect([order.route]))[order.route.id]
        assert session.state is SessionState.MISSING


async def test_nothing_asked_is_nothing_answered(subject: Subject) -> None:
    assert await subject.provisioner.start([]) == {}
    assert await subject.provisioner.inspect([]) == {}
    assert await subject.provisioner.stop([]) == {}


async def test_a_fake_that_is_away_raises_as_a_fleet_that_is_gone_does() -> None:
    fake = FakeProvisioner()
    fake.away = True
    gone = SimulatedProvisioner(FleetClient(Path("/nonexistent/fleet")))
    for provisioner in (fake, gone):
        with pytest.raises(ProvisionError):
            await provisioner.inspect([a_route()])
        with pytest.raises(ProvisionError):
            await provisioner.start([an_order(a_route())])
        with pytest.raises(ProvisionError):
            await provisioner.stop([a_route()])
        await provisioner.close()


async def test_a_fake_session_may_pend_exit_and_refuse_to_stop() -> None:
    fake = FakeProvisioner()
    fake.starts_as = SessionState.PENDING
    order = an_order(a_route())
    route = order.route
    await fake.start([order])
    assert (await fake.inspect([route]))[route.id].state is SessionState.PENDING
    fake.give_address(route.id)
    assert (await fake.inspect([route]))[route.id].host is not None
    fake.exit(route.id, "out of memory")
    session = (await fake.inspect([route]))[route.id]
    assert (session.state, session.exit_reason) == (SessionState.EXITED, "out of memory")
    fake.unstoppable[route.id] = "stuck"
    assert isinstance((await fake.stop([route]))[route.id], ProvisionError)
