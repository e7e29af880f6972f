"""What the observer concludes for safety: sick probers, lost memory, clocks, second witnesses."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

import msgspec
import pytest
import structlog.testing

from controller.metrics import ControllerMetrics
from controller.model import DeploymentId, Health, Stage, SubStep
from controller.reconcile.deployments import Deploying
from controller.reconcile.handler import World
from controller.reconcile.health import Evict
from controller.reconcile.observe import JUMPS_MAX
from controller.route.guard import HoldCause, generation_of
from probe.wire import ReplicaHealthStatus, ReplicaId, partition_of
from tests.fakes.handled import changes_of, standing
from tests.fakes.nouns import (
    DEMO,
    a_deployment,
    a_route,
    a_view,
    deploying,
    failed,
    fleet,
    seconded,
)
from tests.fakes.reconcile import ALWAYS
from tests.fakes.witness import Watch, heartbeat, said

ROUTE = a_route(1)
REPLICA = ReplicaId(ROUTE.id)
HERE = partition_of(REPLICA)


def events(logs: Iterable[Mapping[str, object]]) -> list[object]:
    return [entry["event"] for entry in logs]


class TestProbers:
    async def test_a_sick_prober_covers_nothing_and_says_nothing(self) -> None:
        """S7, R-05"""
        watch = Watch([ROUTE])
        watch.bus.probers = {"p-1": heartbeat(sick="it fails its own test")}
        watch.bus.say(replace_prober(said(ROUTE, seq=1)))
        world = await watch.look()
        assert world.view.covered_for_s == {}
        assert world.view.statuses == {}
        assert world.view.unreadable == {ROUTE.id}, "nor is the route without a status"
        assert {HoldCause.NO_PROBER, HoldCause.COVERAGE} == world.hold

    @pytest.mark.parametrize(("left", "holds"), [(4, False), (2, False), (1, True)])
    async def test_less_than_half_of_the_probers_there_were_hold(
        self, left: int, *, holds: bool
    ) -> None:
        """S8"""
        watch = Watch([ROUTE])
        four = {f"p-{number}": heartbeat(instance=f"p-{number}") for number in range(4)}
        watch.bus.probers = four
        assert (await watch.look()).hold == frozenset()
        watch.bus.probers = dict(list(four.items())[:left])
        assert (HoldCause.FEW_PROBERS in (await watch.look(after_s=5.0)).hold) is holds

    async def test_after_a_quarter_of_an_hour_fewer_probers_are_what_there_is(self) -> None:
        """S8"""
        watch = Watch([ROUTE])
        watch.bus.probers = {name: heartbeat(instance=name) for name in ("p-1", "p-2", "p-3")}
        await watch.look()
        watch.bus.probers = {"p-1": heartbeat()}
        watch.bus.say(said(ROUTE, seq=2))
        assert HoldCause.FEW_PROBERS in (await watch.look(after_s=900.0)).hold
        watch.bus.say(said(ROUTE, seq=3))
        assert HoldCause.FEW_PROBERS not in (await watch.look(after_s=0.1)).hold


def replace_prober(status: ReplicaHealthStatus) -> ReplicaHealthStatus:
    return msgspec.structs.replace(status, prober="p-1")


class TestHalfGone:
    @pytest.mark.parametrize(("gone", "amnesia"), [(4, False), (5, True), (10, True)])
    async def test_half_of_the_statuses_gone_at_once_is_amnesia(
        self, gone: int, *, amnesia: bool
    ) -> None:
        """S4: and the targets are written again at once."""
        routes = fleet(10)
        watch = Watch(routes)
        await watch.look()
        watch.bus.say(*(said(route, seq=2) for route in routes[gone:]))
        world = await watch.look(after_s=5.0)
        assert (HoldCause.BUS_AMNESIA in world.hold) is amnesia
        assert watch.amnesias == 1 + amnesia

    async def test_routes_that_left_took_their_statuses_with_them(self) -> None:
        routes = fleet(10)
        watch = Watch(routes)
        await watch.look()
        watch.ledger.routes = routes[8:]
        watch.bus.say(*(said(route, seq=2) for route in routes[8:]))
        assert (await watch.look(after_s=5.0)).hold == frozenset()


class TestClocks:
    @pytest.mark.parametrize("clock", ["ledger", "bus"])
    async def test_a_clock_that_steps_holds_for_two_looks(self, clock: str) -> None:
        """S19, R-36"""
        watch = Watch([ROUTE])
        await watch.look()
        assert (await watch.look(after_s=5.0)).hold == frozenset()
        stepping = watch.ledger if clock == "ledger" else watch.bus
        stepping.skew_s = 60.0
        with structlog.testing.capture_logs() as logs:
            holds = [(await watch.look(after_s=1.0)).hold for _ in range(3)]
        assert holds == [{HoldCause.CLOCKS}, {HoldCause.CLOCKS}, frozenset()]
        assert events(logs) == ["clocks_disagree", "hold", "hold_over"]


class TestJump:
    """A database that fails over to a server with another clock, or whose clock is set."""

    async def looks(self, watch: Watch, *, jump_s: float) -> list[World]:
        await watch.look()
        await watch.look(after_s=5.0)
        watch.ledger.skew_s = jump_s
        return [await watch.look(after_s=5.0) for _ in range(4)]

    @pytest.mark.parametrize("jump_s", [10_800.0, -10_800.0])
    async def test_no_rollout_turns_back_for_it(self, jump_s: float) -> None:
        """S19, S15, R-36: its two hours are not over."""
        watch = Watch([ROUTE])
        moving = deploying(1)
        watch.ledger.deployments = (moving,)
        for world in await self.looks(watch, jump_s=jump_s):
            decision = Deploying(ALWAYS).decide(world, moving, [ROUTE])
            change = None if decision is None else decision.change
            assert change is None or change.sub_step is not SubStep.ROLLING_BACK

    @pytest.mark.parametrize("jump_s", [10_800.0, -10_800.0])
    @pytest.mark.parametrize("stage", [Stage.PENDING, Stage.STARTING, Stage.COOLING_DOWN])
    async def test_no_route_has_stood_longer_for_it(self, stage: Stage, jump_s: float) -> None:
        """S19, R-48: neither is a start given up, nor are requests in flight cut off."""
        watch = Watch()
        route = replace(standing(stage), entered_at_ms=watch.ledger.now_ms)
        watch.ledger.routes = [route]
        for number, world in enumerate(await self.looks(watch, jump_s=jump_s), start=2):
            assert world.stood_ms(route) == pytest.approx(
                min(0.0, jump_s) * 1000 + number * 5_000, abs=100
            )

    async def test_a_clock_that_is_set_all_the_time_is_remembered_within_bounds(self) -> None:
        watch = Watch([ROUTE])
        for number in range(3 * JUMPS_MAX):
            watch.ledger.skew_s = number * 60.0
            world = await watch.look(after_s=1.0)
        assert len(world.jumps) == JUMPS_MAX


class TestBreakerOfOne:
    async def test_it_holds_its_deployment_alone(self) -> None:
        """S9"""
        ill, well = fleet(4, bad=2), fleet(16, first=20, deployment_id=DeploymentId("others"))
        watch = Watch([*ill, *well])
        watch.ledger.deployments = (a_deployment(), a_deployment(id=DeploymentId("others")))
        world = await watch.look()
        assert world.hold == frozenset()
        assert world.held_deployments == {DEMO}
        assert world.hold_for(DEMO) == {HoldCause.DEPLOYMENT_BREAKER}
        assert world.hold_for(DeploymentId("others")) == frozenset()
        assert world.causes == {HoldCause.DEPLOYMENT_BREAKER}
        kind = {"kind": "deployment_breaker"}
        value = watch.metrics.registry.get_sample_value("fleetpulse_incident_active", kind)
        assert value == 1

    async def test_force_lets_a_deployment_go_on(self) -> None:
        """S21"""
        watch = Watch(fleet(4, bad=2))
        watch.ledger.deployments = (a_deployment(forced_until_ms=10**15),)
        world = await watch.look()
        assert world.held_deployments == {DEMO}
        assert world.hold == {HoldCause.BREAKER}
        assert world.hold_for(DEMO) == frozenset()
        assert not world.frozen(DEMO)


class TestSecondWitness:
    async def test_a_second_id_is_read_with_the_first_and_followed_over_looks(self) -> None:
        """S11"""
        watch = Watch([ROUTE])
        watch.bus.probers = {
            "p-1": heartbeat(tuple(range(32))),
            "p-2": heartbeat(tuple(range(32, 64)), instance="p-2"),
        }
        failing = msgspec.structs.replace(
            failed(ROUTE).status, prober="p-1", seq=2, generation=generation_of(ROUTE)
        )
        twin = ReplicaId("00000000-0000-4000-8000-00000000ffff")
        watch.bus.say(failing)
        assert (await watch.look()).view.cases[ROUTE.id].second == ""
        watch.observer.witness.asked = {ROUTE.id: twin}
        watch.bus.say(failing, msgspec.structs.replace(failing, replica_id=twin, prober="p-2"))
        world = await watch.look(after_s=5.0)
        assert watch.bus.asked_for == [REPLICA, twin]
        assert world.view.cases[ROUTE.id].second == "prober p-2 found the same as p-1"
        watch.bus.away = True
        assert (await watch.look(after_s=5.0)).view.cases == world.view.cases, "a no-op (S3)"


class TestColdStart:
    async def test_once_nearly_all_was_seen_a_little_less_is_no_new_start(self) -> None:
        """S20"""
        routes = fleet(50)
        watch = Watch(routes)
        watch.bus.say(*(said(route, seq=1) for route in routes[:47]))
        assert not (await watch.look()).view.seen_enough
        watch.bus.say(*(said(route, seq=2) for route in routes[:48]))
        assert (await watch.look(after_s=5.0)).view.seen_enough
        watch.bus.say(*(said(route, seq=3) for route in routes[:46]))
        assert (await watch.look(after_s=5.0)).view.seen_enough

    async def test_what_held_before_there_was_anybody_to_protect_is_a_start(self) -> None:
        """S20, S21: the prober of a new stack comes up after the controller."""
        watch = Watch([])
        watch.bus.probers = {}
        assert (await watch.look()).hold == {HoldCause.NO_PROBER}
        watch.bus.probers = {"p-1": heartbeat()}
        watch.ledger.routes = [ROUTE]
        watch.bus.say(said(ROUTE, seq=1))
        view = (await watch.look(after_s=5.0)).view
        assert (view.clear_for_s, view.held_before) == (0.0, False)
        watch.bus.probers = {}
        assert (await watch.look(after_s=5.0)).view.held_before


class TestNewLeader:
    async def test_it_has_watched_since_its_first_look_and_no_longer(self) -> None:
        """S20: a database that is away at the start lets nobody look."""
        watch = Watch([ROUTE])
        assert (await watch.look(after_s=60.0)).view.clear_for_s == 0.0

    @pytest.mark.parametrize(("left", "held"), [(None, True), (DEMO, False)])
    async def test_a_hold_it_finds_on_record_is_closed_as_slowly_as_its_own(
        self, left: DeploymentId | None, *, held: bool
    ) -> None:
        """S21, S13: a change of leaders is no way around two minutes and a slow beginning."""
        watch = Watch([ROUTE])
        watch.ledger.held = frozenset({left})
        await watch.look()
        watch.ledger.held = frozenset()
        view = (await watch.look(after_s=5.0)).view
        assert (view.clear_for_s, view.held_before) == (5.0, held)


class TestClosingOfOne:
    """A deployment recovers replica by replica: the last one is no more dead than the others."""

    async def test_the_last_to_recover_is_not_evicted_for_being_the_last(self) -> None:
        """S9, S21: its breaker lets go at the third of four, and evictions wait two minutes."""
        ill = [
            *fleet(3, health=Health.UNHEALTHY),
            a_route(4, health=Health.UNHEALTHY),
            *fleet(30, first=50, deployment_id=DeploymentId("others")),
        ]
        watch = Watch(ill)
        watch.ledger.deployments = (
            a_deployment(replicas=4),
            a_deployment(id=DeploymentId("others"), name="others", replicas=30),
        )
        assert (await watch.look()).held_deployments == {DEMO}
        watch.ledger.routes = [
            replace(route, health=Health.HEALTHY) if route.id != ill[3].id else route
            for route in ill
        ]
        world = await watch.look(after_s=10.0)
        assert world.held_deployments == frozenset()
        failing = {ill[3].id: failed(ill[3])}
        world = replace(world, view=a_view(failing, cases=seconded(failing)))
        metrics = ControllerMetrics()
        assert await changes_of(Evict(ALWAYS, metrics), world) == {}
        counted = metrics.registry.get_sample_value
        assert counted("fleetpulse_evictions_blocked_total", {"cause": "closing"}) == 1
        assert (await watch.look(after_s=109.9)).closing_deployments == {DEMO}
        last = await watch.look(after_s=0.1)
        assert last.closing_deployments == frozenset()
        last = replace(last, view=world.view, hold=frozenset())
        assert set(await changes_of(Evict(ALWAYS, metrics), last)) == {ill[3].id}

    async def test_a_new_leader_closes_it_as_slowly(self) -> None:
        """S21"""
        watch = Watch([ROUTE])
        watch.ledger.held = frozenset({DEMO})
        assert (await watch.look()).closing_deployments == {DEMO}
        assert (await watch.look(after_s=120.0)).closing_deployments == frozenset()
