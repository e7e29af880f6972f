"""A route's last steps: out of traffic, a grace for what is in flight, the end."""

import pytest
import structlog.testing

from controller.metrics import ControllerMetrics
from controller.model import RouteStatus, Stage
from controller.reconcile.registry import Registry
from controller.reconcile.targets import SyncProbeTargets
from controller.reconcile.traffic import Drain, Terminate
from probe.wire import ReplicaId
from tests.fakes.handled import changes_of, publication, standing, told
from tests.fakes.nouns import warming
from tests.fakes.provisioner import FakeProvisioner
from tests.fakes.reconcile import ALWAYS, RecordingBus, a_world

GRACE_S = 30.0
UNREGISTER_S = 60.0


@pytest.fixture
def provisioner() -> FakeProvisioner:
    return FakeProvisioner()


@pytest.fixture
def bus() -> RecordingBus:
    return RecordingBus()


@pytest.fixture
def metrics() -> ControllerMetrics:
    return ControllerMetrics()


async def test_a_route_no_proxy_knows_cools_down() -> None:
    """R-48"""
    route = standing(Stage.DRAINING, age_s=0)
    drain = Drain(ALWAYS, told(), timeout_s=UNREGISTER_S)
    found = await changes_of(drain, a_world([route]))
    assert (found[route.id].stage, found[route.id].error_code) == (Stage.COOLING_DOWN, "")


@pytest.mark.parametrize("delivered", [True, False])
async def test_a_route_that_is_published_waits_until_proxies_are_told(*, delivered: bool) -> None:
    """R-48: committed is not told."""
    route = standing(Stage.DRAINING, age_s=0)
    with_it, without = publication(1, route), publication(2)
    registry = told(with_it)
    drain = Drain(ALWAYS, registry, timeout_s=UNREGISTER_S)
    assert await changes_of(drain, a_world([route])) == {}
    registry.newest[without.deployment_id] = without
    if delivered:
        assert registry.delivered(without)
        assert not registry.delivered(with_it), "a late one is no news"
    found = await changes_of(drain, a_world([route]))
    assert {*found} == ({route.id} if delivered else set())


@pytest.mark.parametrize(("age_s", "goes"), [(59.9, False), (60.0, True)])
async def test_a_proxy_that_cannot_be_told_keeps_nobody_for_ever(
    age_s: float, *, goes: bool
) -> None:
    """R-48, R-36: sync goes on telling it."""
    route = standing(Stage.DRAINING, age_s=age_s)
    drain = Drain(ALWAYS, told(publication(1, route)), timeout_s=UNREGISTER_S)
    found = await changes_of(drain, a_world([route]))
    assert {c.error_code for c in found.values()} == ({"UNREGISTER_EXPIRED"} if goes else set())


def test_what_an_earlier_leader_left_undelivered_may_still_be_known() -> None:
    """R-48"""
    route, without = standing(Stage.DRAINING), publication(2)
    registry = Registry()
    assert registry.knows(route), "nothing is read yet"
    registry.load({without.deployment_id: without}, [without.deployment_id])
    assert registry.knows(route)
    assert registry.delivered(without)
    assert not registry.knows(route)


@pytest.mark.parametrize(("age_s", "selected"), [(29.9, 0), (30.0, 1)])
def test_requests_in_flight_have_their_grace_by_the_databases_clock(
    provisioner: FakeProvisioner, bus: RecordingBus, age_s: float, selected: int
) -> None:
    """R-36"""
    world = a_world([standing(Stage.COOLING_DOWN, age_s=age_s)])
    handler = Terminate(provisioner, bus, ALWAYS, grace_s=GRACE_S)
    assert len(handler.select(world)) == selected


async def test_the_session_stops_and_one_that_cannot_be_stopped_is_asked_again(
    provisioner: FakeProvisioner, bus: RecordingBus
) -> None:
    first, second = standing(Stage.COOLING_DOWN, 1), standing(Stage.COOLING_DOWN, 2)
    provisioner.unstoppable[second.id] = "busy"
    world = a_world([first, second])
    handler = Terminate(provisioner, bus, ALWAYS, grace_s=GRACE_S)
    plan = await handler.decide(world, handler.select(world))
    assert [change.route.id for change in plan.changes] == [first.id]
    assert plan.changes[0].status is RouteStatus.TERMINATED
    assert [(note.route_id, note.error_code) for note in plan.notes] == [(second.id, "STOP_FAILED")]


async def test_the_bus_forgets_what_was_stopped_before_the_row_says_so(
    provisioner: FakeProvisioner, bus: RecordingBus, metrics: ControllerMetrics
) -> None:
    """R-44: a controller that dies before the commit stops and forgets once more."""
    ended, stays = standing(Stage.COOLING_DOWN, 1), standing(Stage.COOLING_DOWN, 2)
    alive = [warming(1), warming(2)]
    await changes_of(SyncProbeTargets(bus, metrics, ALWAYS), a_world(alive))
    provisioner.unstoppable[stays.id] = "still busy"
    handler = Terminate(provisioner, bus, ALWAYS, grace_s=GRACE_S)
    plan = await handler.decide(a_world([ended, stays]), [ended, stays])
    assert [change.route.id for change in plan.changes] == [ended.id]
    assert set(bus.targets) == {ReplicaId(stays.id)}


async def test_what_an_absent_bus_keeps_is_left_to_expire(
    provisioner: FakeProvisioner, bus: RecordingBus
) -> None:
    bus.away = True
    route = standing(Stage.COOLING_DOWN)
    handler = Terminate(provisioner, bus, ALWAYS, grace_s=GRACE_S)
    with structlog.testing.capture_logs() as logs:
        plan = await handler.decide(a_world([route]), [route])
    assert [change.status for change in plan.changes] == [RouteStatus.TERMINATED]
    assert [entry["event"] for entry in logs] == ["targets_not_removed"]
