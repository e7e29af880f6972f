"""One moment of everything: what is believed of the bus, and what a gap in its word is worth."""

from collections.abc import Iterable, Mapping

import pytest
import structlog.testing

from controller.model import RouteStatus, Stage
from controller.reconcile.observe import Velocity
from controller.route.guard import SETTLE_MIN_S, HoldCause, generation_of
from probe.wire import ReplicaId, partition_of
from tests.fakes.nouns import NOW_MS, a_route, fleet, warming
from tests.fakes.witness import Watch, heartbeat, said

ROUTE = a_route(1)
REPLICA = ReplicaId(ROUTE.id)
HERE = partition_of(REPLICA)


def events(logs: Iterable[Mapping[str, object]]) -> list[object]:
    return [entry["event"] for entry in logs]


class TestReading:
    async def test_the_clock_is_read_after_the_statuses(self) -> None:
        """R-04"""
        watch = Watch([ROUTE])
        await watch.look()
        watch.asked.clear()
        world = await watch.look()
        assert watch.asked == ["database", "statuses", "clock"]
        assert world.snapshot.now_ms == watch.ledger.now_ms

    async def test_only_what_is_probed_is_asked_for(self) -> None:
        """R-01, R-03"""
        starting = warming(3, stage=Stage.STARTING)
        leaving = a_route(4, status=RouteStatus.TERMINATING, stage=Stage.DRAINING)
        watch = Watch([ROUTE, warming(2), starting, leaving, a_route(5, health_check=None)])
        await watch.look()
        assert watch.bus.asked_for == [REPLICA, ReplicaId(warming(2).id)]

    async def test_after_a_commit_the_database_is_read_anew_and_the_bus_is_not(self) -> None:
        watch = Watch([ROUTE])
        world = await watch.look()
        watch.asked.clear()
        watch.ledger.routes = [ROUTE, a_route(2)]
        again = await watch.observer.again(world)
        assert watch.asked == ["database"]
        assert len(again.snapshot.routes) == 2
        assert again.view.statuses == world.view.statuses

    async def test_a_slot_that_cannot_be_read_is_not_an_absent_status(self) -> None:
        """R-05"""
        watch = Watch([ROUTE])
        watch.bus.unreadable = {REPLICA: "WRONGTYPE"}
        world = await watch.look()
        assert world.view.unreadable == {ROUTE.id}
        assert world.view.statuses == {}


class TestBusAway:
    async def test_an_absent_bus_blinds_and_holds_and_is_told_once(self) -> None:
        """R-05, I11"""
        watch = Watch([ROUTE])
        await watch.look()
        watch.bus.away = True
        with structlog.testing.capture_logs() as logs:
            worlds = [await watch.look(after_s=1.0) for _ in range(3)]
        assert events(logs) == ["bus_away", "hold"]
        for world in worlds:
            assert not world.view.reachable
            assert world.view.statuses == {}
            assert world.frozen(ROUTE.deployment_id)
        for world in worlds[1:]:
            assert world.hold == {HoldCause.BUS_UNREACHABLE}
            assert world.view.clear_for_s == 0.0
        assert watch.metrics.registry.get_sample_value("fleetpulse_bus_errors_total") == 3

    async def test_a_bus_that_is_back_has_to_settle_before_absence_counts(self) -> None:
        """R-05: nobody had the time to look yet."""
        watch = Watch([ROUTE])
        await watch.look()
        assert (await watch.look(after_s=50.0)).view.covered_for_s[HERE] == 50.0
        watch.bus.away = True
        await watch.look(after_s=5.0)
        watch.bus.away = False
        with structlog.testing.capture_logs() as logs:
            back = await watch.look(after_s=5.0)
        assert "bus_back" in events(logs)
        assert back.view.reachable
        assert back.view.covered_for_s[HERE] == 0.0
        assert (await watch.look(after_s=40.0)).view.covered_for_s[HERE] == 40.0
        assert watch.amnesias == 1, "it kept its memory: only the first sight writes targets"

    async def test_one_failed_look_is_a_no_op_and_the_second_in_a_row_holds(self) -> None:
        """R-05, S3"""
        watch = Watch([ROUTE])
        await watch.look()
        for _ in range(3):
            watch.bus.away = True
            assert (await watch.look(after_s=1.0)).hold == frozenset()
            watch.bus.away = False
            await watch.look(after_s=1.0)
        watch.bus.away = True
        await watch.look(after_s=1.0)
        assert (await watch.look(after_s=1.0)).hold == {HoldCause.BUS_UNREACHABLE}

    async def test_a_hold_goes_on_through_a_failed_look(self) -> None:
        """S3"""
        watch = Watch([ROUTE])
        watch.bus.probers = {}
        assert (await watch.look()).hold == {HoldCause.NO_PROBER}
        watch.bus.away = True
        assert (await watch.look(after_s=1.0)).hold == {HoldCause.NO_PROBER}


class TestAmnesia:
    async def test_the_first_sight_of_a_bus_writes_targets_and_holds_nothing(self) -> None:
        """R-51"""
        watch = Watch([ROUTE])
        world = await watch.look()
        assert watch.amnesias == 1
        assert world.hold == frozenset()
        assert world.view.remembers_for_s == float("inf")
        await watch.look()
        assert watch.amnesias == 1

    @pytest.mark.parametrize("epoch", [None, "second"])
    async def test_a_bus_that_lost_its_memory_gets_its_targets_and_time(
        self, epoch: str | None
    ) -> None:
        """R-51, I11"""
        watch = Watch([ROUTE])
        await watch.look()
        watch.bus.epoch = epoch
        with structlog.testing.capture_logs() as logs:
            world = await watch.look(after_s=1.0)
        assert "bus_lost_its_memory" in events(logs)
        assert watch.amnesias == 2
        assert watch.bus.epoch is not None
        assert HoldCause.BUS_AMNESIA in world.hold
        watch.bus.say(said(ROUTE, seq=2))
        assert HoldCause.BUS_AMNESIA in (await watch.look(after_s=SETTLE_MIN_S - 0.1)).hold
        assert (await watch.look(after_s=0.1)).hold == frozenset()
        assert watch.amnesias == 2


class TestCoverage:
    async def test_a_gap_in_a_probers_life_starts_its_coverage_anew(self) -> None:
        """R-05"""
        watch = Watch([ROUTE])
        await watch.look()
        await watch.look(after_s=60.0)
        watch.bus.probers = {"p-1": heartbeat([p for p in range(8) if p != HERE])}
        world = await watch.look(after_s=1.0)
        assert HERE not in world.view.covered_for_s
        watch.bus.probers = {"p-1": heartbeat(), "p-2": heartbeat([HERE])}
        assert (await watch.look(after_s=1.0)).view.covered_for_s[HERE] == 0.0
        del watch.bus.probers["p-1"]
        assert (await watch.look(after_s=9.0)).view.covered_for_s[HERE] == 9.0, "by another"

    async def test_without_any_prober_everything_holds(self) -> None:
        """I11"""
        watch = Watch([ROUTE])
        watch.bus.probers = {}
        assert HoldCause.NO_PROBER in (await watch.look()).hold


class TestAges:
    async def test_a_status_is_as_old_as_its_last_move(self) -> None:
        """R-05: on this process's clock, whatever the status says of itself."""
        watch = Watch([ROUTE])
        assert (await watch.look()).view.statuses[ROUTE.id].age_s == 0.0
        assert (await watch.look(after_s=7.0)).view.statuses[ROUTE.id].age_s == 7.0
        watch.bus.say(said(ROUTE, seq=2))
        assert (await watch.look(after_s=7.0)).view.statuses[ROUTE.id].age_s == 0.0
        watch.bus.say(said(ROUTE, seq=2, generation=generation_of(ROUTE) ^ 1))
        assert (await watch.look(after_s=7.0)).view.statuses[ROUTE.id].age_s == 0.0

    async def test_a_frozen_status_does_not_grow_young_in_an_outage(self) -> None:
        """R-05"""
        watch = Watch([ROUTE])
        await watch.look()
        watch.bus.away = True
        await watch.look(after_s=100.0)
        watch.bus.away = False
        watch.bus.unreadable = {REPLICA: "LOADING"}
        await watch.look(after_s=100.0)
        watch.bus.unreadable = {}
        assert (await watch.look(after_s=100.0)).view.statuses[ROUTE.id].age_s == 300.0

    async def test_a_status_that_came_back_is_new(self) -> None:
        watch = Watch([ROUTE])
        await watch.look()
        watch.bus.say()
        assert (await watch.look(after_s=100.0)).view.statuses == {}
        watch.bus.say(said(ROUTE, seq=1))
        assert (await watch.look(after_s=100.0)).view.statuses[ROUTE.id].age_s == 0.0


class TestHold:
    async def test_deadlines_run_only_while_there_is_no_cause_to_hold(self) -> None:
        """R-36, I11"""
        watch = Watch([ROUTE])
        assert (await watch.look()).view.clear_for_s == 0.0
        watch.bus.say(said(ROUTE, seq=2))
        assert (await watch.look(after_s=20.0)).view.clear_for_s == 20.0
        watch.bus.away = True
        await watch.look(after_s=10.0)
        assert (await watch.look(after_s=10.0)).view.clear_for_s == 0.0
        watch.bus.away = False
        watch.bus.say(said(ROUTE, seq=3))
        assert (await watch.look(after_s=20.0)).view.clear_for_s == 0.0
        watch.bus.say(said(ROUTE, seq=4))
        assert (await watch.look(after_s=20.0)).view.clear_for_s == 20.0

    async def test_too_many_newly_unhealthy_hold_for_a_minute(self) -> None:
        """R-20e"""
        routes = fleet(20)
        watch = Watch(routes)
        await watch.look()
        watch.observer.velocity.add(6, now_ms=watch.ledger.now_ms)
        assert HoldCause.VELOCITY in (await watch.look()).hold
        watch.bus.say(*(said(route, seq=2) for route in routes))
        assert (await watch.look(after_s=61.0)).hold == frozenset()

    async def test_a_hold_is_told_when_it_begins_and_when_it_ends(self) -> None:
        watch = Watch([ROUTE])
        await watch.look()
        sick = fleet(4, bad=2)
        with structlog.testing.capture_logs() as logs:
            watch.ledger.routes = sick
            watch.bus.say(*(said(route, seq=1) for route in sick))
            for _ in range(3):
                await watch.look()
            watch.ledger.routes = fleet(4)
            for _ in range(3):
                await watch.look()
        told = [(entry["event"], entry["causes"]) for entry in logs]
        assert told == [("hold", "breaker"), ("hold_over", "breaker")]


def test_velocity_does_not_hold_for_as_long_as_a_clock_is_set_back() -> None:
    """S10, S19: the step is a cause of its own."""
    velocity = Velocity()
    velocity.add(6, now_ms=NOW_MS)
    assert velocity.within_a_minute(now_ms=NOW_MS - 60_000) == 6
    assert velocity.within_a_minute(now_ms=NOW_MS - 60_001) == 0


def test_velocity_forgets_after_a_minute() -> None:
    velocity = Velocity()
    velocity.add(3, now_ms=NOW_MS)
    velocity.add(2, now_ms=NOW_MS + 30_000)
    counts = [velocity.within_a_minute(now_ms=NOW_MS + at) for at in (30_000, 60_001, 90_001)]
    assert counts == [5, 2, 0]
