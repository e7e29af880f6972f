"""The handler that keeps the prober's targets: what it writes, when, and what it makes up for."""

from dataclasses import replace

import pytest
import structlog.testing

from controller.metrics import ControllerMetrics
from controller.reconcile.handler import Schedule, World
from controller.reconcile.targets import SyncProbeTargets
from probe.wire import ReplicaId
from tests.fakes.nouns import a_route, fleet, warming
from tests.fakes.reconcile import ALWAYS, RecordingBus, a_world


@pytest.fixture
def bus() -> RecordingBus:
    return RecordingBus()


@pytest.fixture
def metrics() -> ControllerMetrics:
    return ControllerMetrics()


def later(world: World, after_s: float) -> World:
    now_ms = world.snapshot.now_ms + int(after_s * 1000)
    return replace(world, snapshot=replace(world.snapshot, now_ms=now_ms))


async def sync(handler: SyncProbeTargets, world: World) -> None:
    plan = await handler.decide(world, handler.select(world))
    assert (plan.changes, plan.notes) == ((), ())


async def test_only_what_changed_is_written_until_the_period_is_over(
    bus: RecordingBus, metrics: ControllerMetrics
) -> None:
    """R-51"""
    handler = SyncProbeTargets(bus, metrics, ALWAYS)
    first, second = a_route(1), a_route(2)
    await sync(handler, a_world([first]))
    await sync(handler, a_world([first, second]))
    assert bus.writes == [[first.id], [second.id]]
    handler.forget()
    await sync(handler, a_world([first, second]))
    assert bus.writes[2:] == [[first.id, second.id]]


async def test_everything_is_written_again_each_period(
    bus: RecordingBus, metrics: ControllerMetrics
) -> None:
    """R-51: a time to live ends, also of a target that never changes."""
    handler = SyncProbeTargets(bus, metrics, Schedule(period_s=60.0))
    routes = [*fleet(2), warming(3)]
    ids = [route.id for route in routes]
    for after_s in (0, 59, 60, 90, 120):
        await sync(handler, later(a_world(routes), after_s))
    assert bus.writes == [ids] * 3


async def test_what_a_renewal_could_not_write_is_not_taken_for_removed(
    bus: RecordingBus, metrics: ControllerMetrics
) -> None:
    """R-10, R-44"""
    handler = SyncProbeTargets(bus, metrics, ALWAYS)
    first, second = fleet(2)
    await sync(handler, a_world([first, second]))
    bus.refuse[ReplicaId(first.id)] = "OOM"
    with structlog.testing.capture_logs():
        await sync(handler, later(a_world([first, second]), 60))
    bus.refuse.clear()
    await sync(handler, later(a_world([second]), 61))
    assert set(bus.targets) == {ReplicaId(second.id)}


async def test_a_target_goes_when_its_route_leaves_also_the_last_one(
    bus: RecordingBus, metrics: ControllerMetrics
) -> None:
    """R-44"""
    handler = SyncProbeTargets(bus, metrics, ALWAYS)
    route = a_route(1)
    await sync(handler, a_world([route]))
    assert set(bus.targets) == {ReplicaId(route.id)}
    await sync(handler, a_world([]))
    assert bus.targets == {}


async def test_what_was_refused_is_told_and_tried_again(
    bus: RecordingBus, metrics: ControllerMetrics
) -> None:
    """R-10"""
    handler = SyncProbeTargets(bus, metrics, ALWAYS)
    first, second, unaddressed = a_route(1), a_route(2), a_route(3, host=None)
    bus.refuse[ReplicaId(first.id)] = "OOM"
    world = a_world([first, second, unaddressed])
    with structlog.testing.capture_logs() as logs:
        await sync(handler, world)
    assert [(each["event"], each["first"]) for each in logs if "first" in each] == [
        ("targets_refused", "OOM")
    ]
    counted = {
        result: metrics.registry.get_sample_value(
            "fleetpulse_targets_synced_total", {"result": result}
        )
        for result in ("written", "skipped", "failed")
    }
    assert counted == {"written": 1, "skipped": 1, "failed": 1}
    bus.refuse.clear()
    await sync(handler, world)
    assert bus.writes[1:] == [[first.id]]


async def test_a_bus_that_is_away_is_made_up_for(
    bus: RecordingBus, metrics: ControllerMetrics
) -> None:
    """R-51"""
    handler = SyncProbeTargets(bus, metrics, ALWAYS)
    world = a_world(fleet(2))
    bus.away = True
    with structlog.testing.capture_logs() as logs:
        await sync(handler, world)
    assert [entry["event"] for entry in logs] == ["targets_not_synced"]
    bus.away = False
    await sync(handler, world)
    assert len(bus.targets) == 2
