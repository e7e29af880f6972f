"""The handlers of doubt, and what eviction says of itself."""

from collections.abc import Sequence

import pytest
import structlog.testing

from controller.db.repository import Repository
from controller.metrics import ControllerMetrics
from controller.model import Health, Route, RouteId
from controller.reconcile.doubts import RENEWED_MS, RecordHold, SecondOpinion
from controller.reconcile.handler import Applied, World
from controller.reconcile.health import Evict
from controller.reconcile.witness import Witness
from controller.route.guard import Case, HoldCause, generation_of
from probe.wire import ReplicaId, partition_of
from tests.fakes.nouns import a_deployment, a_view, failed, fleet, snapshot_of
from tests.fakes.reconcile import ALWAYS, RecordingBus, a_world

HALVES = {"p-1": frozenset(range(32)), "p-2": frozenset(range(32, 64))}


class Asking:
    """The handler on a bus that keeps what it is given."""

    def __init__(self) -> None:
        self.bus, self.witness = RecordingBus(), Witness()
        self.handler = SecondOpinion(self.bus, self.witness, ControllerMetrics(), ALWAYS)

    async def run(self, routes: Sequence[Route], *, after_ms: int = 0, **given: object) -> None:
        """Let `routes` be cases, and the handler run."""
        cases: dict[RouteId, Case] = {
            r.id: Case(generation=generation_of(r), since_s=0.0, first="p-1") for r in routes
        }
        view = a_view(**({"cases": cases, "probers": HALVES} | given))  # type: ignore[arg-type]
        snapshot = snapshot_of(fleet(9), now_ms=10**9 + after_ms)
        world = World(snapshot=snapshot, view=view, hold=frozenset())
        assert await self.handler.commit(world, epoch=1) == 0


async def test_a_case_is_probed_by_another_prober_at_the_same_address() -> None:
    """S11"""
    asking, (ill, *_) = Asking(), fleet(1)
    await asking.run([ill])
    ((twin, target),) = asking.bus.targets.items()
    assert asking.witness.asked == {ill.id: twin}
    assert twin != ReplicaId(ill.id)
    assert partition_of(twin) in HALVES["p-2"]
    assert (target.replica_host, target.inference_port) == (ill.host, ill.port)
    assert (target.generation, target.interval_s) == (generation_of(ill), 5.0)


async def test_what_is_no_case_any_more_is_asked_about_no_more() -> None:
    """R-44"""
    asking = Asking()
    await asking.run(fleet(3))
    await asking.run(fleet(1))
    assert len(asking.bus.targets) == len(asking.witness.asked) == 1
    await asking.run([])
    assert asking.bus.targets == {}
    assert asking.witness.asked == {}


async def test_a_second_target_is_written_once_and_renewed_in_time() -> None:
    """I10: and at once when the bus lost its memory."""
    asking = Asking()
    for after_ms in (0, 5_000, RENEWED_MS + 1):
        await asking.run(fleet(1), after_ms=after_ms)
    assert len(asking.bus.writes) == 2
    await asking.run(fleet(1), after_ms=RENEWED_MS + 2, remembers_for_s=1.0)
    assert len(asking.bus.writes) == 3


async def test_a_fleet_in_order_asks_nothing() -> None:
    """I10"""
    asking = Asking()
    asking.bus.away = True
    await asking.run([])
    assert asking.bus.writes == []


async def test_a_bus_that_is_away_is_asked_again() -> None:
    """R-05"""
    asking = Asking()
    asking.bus.away = True
    with structlog.testing.capture_logs() as logs:
        await asking.run(fleet(1))
    assert [entry["event"] for entry in logs] == ["second_opinion_not_asked"]
    assert asking.witness.asked == {}
    asking.bus.away = False
    await asking.run(fleet(1))
    assert len(asking.witness.asked) == 1


async def test_a_look_that_found_no_bus_changes_nothing() -> None:
    """S3"""
    asking = Asking()
    await asking.run(fleet(1))
    await asking.run([], reachable=False)
    assert len(asking.bus.targets) == 1


async def test_hold_goes_on_record_once_and_ends_there_once(
    repository: Repository, epoch: int
) -> None:
    """S15, I10"""
    handler = RecordHold(repository, ALWAYS)
    clear, held = a_world(), a_world(hold=[HoldCause.COVERAGE])
    written = [await handler.commit(world, epoch=epoch) for world in (clear, held, held, clear)]
    assert written == [0, 1, 0, 1]
    assert await repository.open_holds() == frozenset()


@pytest.fixture
def metrics() -> ControllerMetrics:
    return ControllerMetrics()


async def test_eviction_of_the_degraded_is_said_once(metrics: ControllerMetrics) -> None:
    """S2"""
    daring = a_deployment(cleanup_target_statuses=frozenset({Health.DEGRADED}))
    handler = Evict(ALWAYS, metrics)
    with structlog.testing.capture_logs() as logs:
        for deployment in (daring, daring, a_deployment(), daring):
            world = a_world(fleet(3), deployment)
            await handler.decide(world, handler.select(world))
    assert [entry["event"] for entry in logs] == ["degraded_is_evicted"] * 2


def blocked(metrics: ControllerMetrics, cause: str) -> float | None:
    return metrics.registry.get_sample_value("fleetpulse_evictions_blocked_total", {"cause": cause})


async def test_every_gate_that_holds_a_route_back_is_counted(metrics: ControllerMetrics) -> None:
    """R-20e"""
    routes = fleet(9, bad=2)
    statuses = {route.id: failed(route) for route in routes[:2]}
    alone = a_view(statuses, cases={}, clear_for_s=0.0)
    world = a_world(routes, a_deployment(replicas=9), view=alone)
    handler = Evict(ALWAYS, metrics)
    await handler.decide(world, handler.select(world))
    assert blocked(metrics, "second_source") == 2
    assert blocked(metrics, "cold_start") == 2
    await handler.after(world, Applied(changes=(), lost=(routes[0].id,)))
    assert blocked(metrics, "transaction") == 1
