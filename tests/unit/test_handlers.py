"""Each handler of routes and deployments, by itself: what it selects, and what it makes of it."""

from collections.abc import Callable, Sequence
from functools import partial

import pytest
import structlog.testing

from controller.errors import ProvisionError
from controller.metrics import ControllerMetrics
from controller.model import (
    Health,
    Lifecycle,
    Route,
    RouteStatus,
    Stage,
    Traffic,
)
from controller.provision.port import Session, SessionState
from controller.reconcile.deployments import CheckReplicas, Deploying, Destroying
from controller.reconcile.handler import Applied, Plan, RouteHandler
from controller.reconcile.health import CheckWarmingUp, ClassifyHealth, Evict
from controller.reconcile.observe import Velocity
from controller.reconcile.provision import CheckRunning, CheckStarting, Provision
from controller.reconcile.targets import SyncProbeTargets
from controller.reconcile.traffic import Drain, Terminate
from controller.route.guard import HoldCause, StatusEvidence
from tests.fakes.failures import KnownFailures
from tests.fakes.handled import changes_of, standing, told
from tests.fakes.nouns import (
    NEW,
    NOW_MS,
    OLD,
    a_deployment,
    a_route,
    a_view,
    deploying,
    failed,
    fleet,
    passed,
    warming,
)
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


EVERYWHERE = (
    *(standing(stage, number) for number, stage in enumerate(Stage, start=1)),
    a_route(6),
    a_route(7, health_check=None, health=Health.NOT_CHECKED),
)
"""One route in each place a live route can be, and one more that is not checked."""


def handlers(provisioner: FakeProvisioner, bus: RecordingBus) -> Sequence[RouteHandler]:
    metrics = ControllerMetrics()
    return (
        Provision(provisioner, ALWAYS, timeout_s=3600.0),
        CheckStarting(provisioner, ALWAYS, timeout_s=60.0),
        CheckWarmingUp(ALWAYS),
        CheckRunning(provisioner, ALWAYS),
        ClassifyHealth(ALWAYS, Velocity()),
        Evict(ALWAYS, metrics),
        SyncProbeTargets(bus, metrics, ALWAYS),
        Drain(ALWAYS, told(), timeout_s=UNREGISTER_S),
        Terminate(provisioner, bus, ALWAYS, grace_s=GRACE_S),
    )


def test_each_handler_selects_its_own(provisioner: FakeProvisioner, bus: RecordingBus) -> None:
    world = a_world(EVERYWHERE)
    selected = {
        handler.name: [EVERYWHERE.index(route) + 1 for route in handler.select(world)]
        for handler in handlers(provisioner, bus)
    }
    assert selected == {
        "provision": [1],
        "check_starting": [2],
        "check_warming_up": [3],
        "check_running": [3, 6, 7],
        "classify_health": [6],
        "evict": [1, 2, 3, 6, 7],
        "sync_probe_targets": [1, 2, 3, 4, 5, 6, 7],
        "drain": [4],
        "terminate": [5],
    }


def test_an_empty_fleet_is_nobodys_affair(provisioner: FakeProvisioner, bus: RecordingBus) -> None:
    """R-04"""
    for handler in handlers(provisioner, bus):
        assert list(handler.select(a_world())) == []


class TestProvision:
    async def test_an_accepted_route_starts_and_a_refused_one_stops_no_other(
        self, provisioner: FakeProvisioner
    ) -> None:
        """R-37: what is refused fails by itself, with the reason on record."""
        first, second = standing(Stage.PENDING, 1), standing(Stage.PENDING, 2)
        provisioner.refuse[first.id] = "no room"
        found = await changes_of(
            Provision(provisioner, ALWAYS, timeout_s=3600.0), a_world([first, second])
        )
        assert found[first.id].status is RouteStatus.FAILED_TO_START
        assert found[first.id].message == "the provisioner refused: no room"
        assert (found[second.id].stage, found[second.id].session_id) == (
            Stage.STARTING,
            f"fake-{second.id}",
        )
        assert provisioner.calls == ["start"]

    async def test_a_route_of_the_deploying_revision_is_started_with_it(
        self, provisioner: FakeProvisioner
    ) -> None:
        route = warming(stage=Stage.PENDING, revision_id=NEW.id)
        found = await changes_of(
            Provision(provisioner, ALWAYS, timeout_s=3600.0), a_world([route], deploying())
        )
        assert found[route.id].stage is Stage.STARTING

    async def test_an_orphan_is_never_started(self, provisioner: FakeProvisioner) -> None:
        """R-20d"""
        route = warming(stage=Stage.PENDING, revision_id=NEW.id)
        found = await changes_of(Provision(provisioner, ALWAYS, timeout_s=3600.0), a_world([route]))
        assert found[route.id].stage is Stage.DRAINING
        assert found[route.id].error_code == "ORPHAN_REVISION"
        assert provisioner.calls == []


class TestCheckStarting:
    @pytest.mark.parametrize(
        ("session", "stage", "code"),
        [
            (Session(id="s", state=SessionState.PENDING), None, ""),
            (Session(id="s", state=SessionState.EXITED), Stage.DRAINING, "SESSION_LOST"),
            (Session(id="", state=SessionState.MISSING), Stage.DRAINING, "SESSION_LOST"),
            (
                Session(id="s", state=SessionState.RUNNING, host="h"),
                Stage.DRAINING,
                "NO_ADDRESS",
            ),
            (
                Session(id="s", state=SessionState.RUNNING, host="h", port=2**70),
                Stage.DRAINING,
                "NO_ADDRESS",
            ),
            (
                Session(id="s", state=SessionState.RUNNING, host="h", port=80),
                Stage.WARMING_UP,
                "",
            ),
        ],
        ids=["pending", "exited", "missing", "without a port", "with none there is", "running"],
    )
    async def test_what_the_session_says_moves_the_route(
        self, provisioner: FakeProvisioner, session: Session, stage: Stage | None, code: str
    ) -> None:
        route = standing(Stage.STARTING)
        provisioner.sessions[route.id] = session
        found = await changes_of(
            CheckStarting(provisioner, ALWAYS, timeout_s=60.0), a_world([route])
        )
        if stage is None:
            assert found == {}
        else:
            assert (found[route.id].stage, found[route.id].error_code) == (stage, code)

    @pytest.mark.parametrize(("age_s", "gone"), [(60.0, False), (61.0, True)])
    async def test_a_session_that_never_gets_an_address_is_given_up(
        self, provisioner: FakeProvisioner, age_s: float, *, gone: bool
    ) -> None:
        route = standing(Stage.STARTING, age_s=age_s)
        provisioner.sessions[route.id] = Session(id="s", state=SessionState.PENDING)
        handler = CheckStarting(provisioner, ALWAYS, timeout_s=60.0)
        found = await changes_of(handler, a_world([route]))
        assert {c.error_code for c in found.values()} == ({"STARTING_EXPIRED"} if gone else set())

    async def test_the_address_comes_with_the_stage(self, provisioner: FakeProvisioner) -> None:
        route = standing(Stage.STARTING)
        provisioner.give_address(route.id)
        found = await changes_of(
            CheckStarting(provisioner, ALWAYS, timeout_s=60.0), a_world([route])
        )
        assert (found[route.id].host, found[route.id].port) == ("127.65.0.1", 8000)


class TestCheckRunning:
    async def test_only_a_session_that_is_gone_takes_its_route_along(
        self, provisioner: FakeProvisioner
    ) -> None:
        lives, ended = a_route(1), a_route(2)
        for route in (lives, ended):
            provisioner.give_address(route.id)
        provisioner.exit(ended.id, "out of memory")
        found = await changes_of(CheckRunning(provisioner, ALWAYS), a_world([lives, ended]))
        assert set(found) == {ended.id}
        change = found[ended.id]
        assert (change.stage, change.health, change.traffic) == (
            Stage.DRAINING,
            Health.NOT_CHECKED,
            Traffic.INACTIVE,
        )
        assert change.message == "the session is exited: out of memory"

    @pytest.mark.parametrize("reachable", [True, False], ids=["passing", "bus away"])
    async def test_who_serves_is_not_gone_because_the_provisioner_knows_nobody(
        self, provisioner: FakeProvisioner, *, reachable: bool
    ) -> None:
        """S11: asked with another's account, a provisioner knows no session of ours."""
        routes = fleet(3)
        statuses = {route.id: passed(route) for route in routes}
        handler = CheckRunning(provisioner, ALWAYS)
        seen = a_view(statuses if reachable else {}, reachable=reachable)
        plan = await handler.decide(a_world(routes, view=seen), routes)
        assert plan.changes == ()
        assert [note.route_id for note in plan.notes] == [route.id for route in routes]
        again = await handler.decide(a_world(routes, view=seen), routes)
        assert again == Plan()

    @pytest.mark.parametrize(
        "say",
        [failed, partial(passed, age_s=100.0), None],
        ids=["fails", "passed long ago", "nothing"],
    )
    async def test_who_is_unknown_and_does_not_pass_is_gone(
        self, provisioner: FakeProvisioner, say: Callable[[Route], StatusEvidence] | None
    ) -> None:
        route = a_route(1)
        view = a_view({} if say is None else {route.id: say(route)})
        found = await changes_of(CheckRunning(provisioner, ALWAYS), a_world([route], view=view))
        assert found[route.id].error_code == "SESSION_LOST"

    async def test_a_session_that_exited_is_gone_whatever_probes_said(
        self, provisioner: FakeProvisioner
    ) -> None:
        route = a_route(1)
        provisioner.give_address(route.id)
        provisioner.exit(route.id, "out of memory")
        view = a_view({route.id: passed(route)})
        found = await changes_of(CheckRunning(provisioner, ALWAYS), a_world([route], view=view))
        assert set(found) == {route.id}

    async def test_a_provisioner_that_cannot_tell_takes_nobody(
        self, provisioner: FakeProvisioner
    ) -> None:
        """R-05: ignorance is not absence."""
        provisioner.away = True
        with pytest.raises(ProvisionError):
            await changes_of(CheckRunning(provisioner, ALWAYS), a_world(fleet(2)))


class TestHealth:
    async def test_who_passes_while_warming_up_runs(self) -> None:
        route = warming(1, entered_at_ms=NOW_MS - 10_000)
        view = a_view({route.id: passed(route)})
        found = await changes_of(CheckWarmingUp(ALWAYS), a_world([route], view=view))
        assert (found[route.id].status, found[route.id].health) == (
            RouteStatus.RUNNING,
            Health.HEALTHY,
        )

    async def test_a_route_whose_deployment_is_gone_waits_for_eviction(self) -> None:
        route = warming(1)
        other = a_deployment(id="another")
        assert await changes_of(CheckWarmingUp(ALWAYS), a_world([route], other)) == {}

    async def test_only_changes_of_health_are_written_and_the_newly_unhealthy_counted(
        self,
    ) -> None:
        """R-41"""
        well, ill = a_route(1), a_route(2)
        view = a_view({well.id: passed(well), ill.id: failed(ill)})
        velocity = Velocity()
        handler = ClassifyHealth(ALWAYS, velocity)
        world = a_world([well, ill], view=view)
        found = await changes_of(handler, world)
        assert {key: change.health for key, change in found.items()} == {ill.id: Health.UNHEALTHY}
        assert velocity.within_a_minute(now_ms=NOW_MS) == 0
        await handler.after(world, Applied(changes=tuple(found.values())))
        assert velocity.within_a_minute(now_ms=NOW_MS) == 1

    async def test_a_loss_in_the_database_is_not_counted_as_newly_unhealthy(self) -> None:
        """R-21"""
        velocity = Velocity()
        await ClassifyHealth(ALWAYS, velocity).after(a_world(), Applied(changes=()))
        assert velocity.within_a_minute(now_ms=NOW_MS) == 0


class TestEvict:
    async def test_the_unhealthy_go_within_the_budget_and_it_is_charged_after_the_commit(
        self, metrics: ControllerMetrics
    ) -> None:
        """R-20e, R-21"""
        routes = fleet(10, bad=1)
        world = a_world(
            routes,
            a_deployment(replicas=10),
            view=a_view({r.id: failed(r) if i == 0 else passed(r) for i, r in enumerate(routes)}),
        )
        handler = Evict(ALWAYS, metrics)
        found = await changes_of(handler, world)
        assert set(found) == {routes[0].id}
        again = await changes_of(handler, world)
        assert set(again) == {routes[0].id}
        with structlog.testing.capture_logs() as logs:
            await handler.after(world, Applied(changes=tuple(found.values())))
        assert [entry["event"] for entry in logs] == ["evicted"]
        assert await changes_of(handler, world) == {}

    async def test_held_nobody_goes_and_the_cause_is_counted(
        self, metrics: ControllerMetrics
    ) -> None:
        """R-20e"""
        routes = fleet(10, bad=1)
        world = a_world(routes, a_deployment(replicas=10), hold=[HoldCause.BUS_UNREACHABLE])
        assert await changes_of(Evict(ALWAYS, metrics), world) == {}
        blocked = metrics.registry.get_sample_value(
            "fleetpulse_evictions_blocked_total", {"cause": "bus_unreachable"}
        )
        assert blocked == 1


class TestDeployments:
    def test_each_lifecycle_has_its_handler_and_deploying_is_nobody_elses(self) -> None:
        """R-30"""
        for lifecycle in Lifecycle:
            world = a_world([], a_deployment(lifecycle=lifecycle))
            selecting = [
                handler.name
                for handler in (
                    Deploying(ALWAYS),
                    CheckReplicas(ALWAYS, KnownFailures()),
                    Destroying(ALWAYS),
                )
                if handler.select(world)
            ]
            expected = {
                Lifecycle.DEPLOYING: ["deploying"],
                Lifecycle.READY: ["check_replicas"],
                Lifecycle.DESTROYING: ["destroying"],
            }
            assert selecting == expected.get(lifecycle, [])

    def test_a_rollout_creates_with_ids_nobody_has(self) -> None:
        routes = fleet(3)
        deployment = deploying()
        world = a_world(routes, deployment)
        decision = Deploying(ALWAYS).decide(world, deployment, routes)
        assert decision is not None
        assert [new.revision_id for new in decision.create] == [NEW.id]
        assert decision.create[0].id not in {route.id for route in routes}

    def test_what_is_missing_is_created(self) -> None:
        deployment = a_deployment(replicas=3)
        routes = fleet(1)
        decision = CheckReplicas(ALWAYS, KnownFailures()).decide(
            a_world(routes, deployment), deployment, routes
        )
        assert decision is not None
        assert [new.revision_id for new in decision.create] == [OLD.id] * 2

    def test_what_is_destroyed_drains(self) -> None:
        deployment = a_deployment(lifecycle=Lifecycle.DESTROYING)
        routes = fleet(2)
        decision = Destroying(ALWAYS).decide(a_world(routes, deployment), deployment, routes)
        assert decision is not None
        assert [change.stage for change in decision.routes] == [Stage.DRAINING] * 2
