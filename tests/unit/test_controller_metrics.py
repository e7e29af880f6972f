"""The controller's exposition: every promised name, from the start, and no series too long."""

from dataclasses import replace

import pytest

from controller.invariants import Invariant
from controller.metrics import ControllerMetrics
from controller.model import (
    Decision,
    Deployment,
    DeploymentChange,
    DeploymentId,
    HoldSpan,
    Lifecycle,
    Outcome,
    Policy,
    RouteChange,
    RouteStatus,
    Stage,
    SubStep,
    Traffic,
)
from controller.route.evict import CATEGORY, HEALTH_POLICY
from controller.route.guard import Gate, HoldCause
from controller.route.orphans import ORPHAN
from controller.settings import PERIODS
from tests.fakes.nouns import (
    NEW,
    NOW_MS,
    OLD,
    a_deployment,
    a_rollout,
    a_route,
    deploying,
    fleet,
    snapshot_of,
    warming,
)

PROMISED = frozenset(
    {
        "reconcile_seconds",
        "reconcile_last_success_timestamp_seconds",
        "sql_writes_total",
        "evictions_total",
        "evictions_blocked_total",
        "incident_active",
        "rollout_replicas",
        "rollout_deadline_timestamp_seconds",
        "rollouts_total",
        "rollout_duration_seconds",
        "invariant_violations_total",
        "bus_errors_total",
        "leader",
        "build_info",
    }
)
"""What dashboards and alerts rely on, as far as it is the controller's."""
CLOSED_LABELS = {
    *("deployment", "state", "side", "handler", "strategy", "outcome", "cause", "kind"),
    *("invariant", "table", "result", "version", "component", "le"),
}


@pytest.fixture
def metrics() -> ControllerMetrics:
    return ControllerMetrics()


def value(metrics: ControllerMetrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"fleetpulse_{name}", labels)


def series(metrics: ControllerMetrics) -> set[tuple[str, tuple[str, ...]]]:
    return {
        (sample.name, tuple(sample.labels.values()))
        for family in metrics.registry.collect()
        for sample in family.samples
    }


def named(name: str, revision: str = "demo-id", **given: object) -> Deployment:
    return a_deployment(name=name, id=DeploymentId(revision), **given)


class TestNames:
    def test_every_promised_name_is_there_before_anything_happens(
        self, metrics: ControllerMetrics
    ) -> None:
        families = {
            family.name + ("_total" if family.type == "counter" else "")
            for family in metrics.registry.collect()
        }
        assert {f"fleetpulse_{name}" for name in PROMISED} <= families

    def test_labels_are_of_a_closed_set(self, metrics: ControllerMetrics) -> None:
        metrics.observed(snapshot_of(fleet(3), deploying()), [])
        labels = {
            label
            for family in metrics.registry.collect()
            for sample in family.samples
            for label in sample.labels
        }
        assert labels <= CLOSED_LABELS

    def test_a_counter_is_there_before_its_first_event(self, metrics: ControllerMetrics) -> None:
        for handler in PERIODS:
            assert value(metrics, "reconcile_failures_total", handler=handler) == 0
        for invariant in Invariant:
            assert value(metrics, "invariant_violations_total", invariant=invariant.value) == 0
        for cause in (*HoldCause, *Gate):
            assert value(metrics, "evictions_blocked_total", cause=str(cause)) == 0
        for kind in HoldCause:
            assert value(metrics, "incident_active", kind=kind.value) == 0


class TestSeriesEnd:
    def test_a_thousand_deployments_later_the_series_are_those_of_the_first_day(
        self, metrics: ControllerMetrics
    ) -> None:
        """R-67"""
        metrics.observed(snapshot_of([], named("first")), [])
        before = series(metrics)
        for number in range(1000):
            routes = fleet(2, deployment_id=DeploymentId("churned"))
            metrics.observed(snapshot_of(routes, named(f"d-{number}", "churned")), [])
        metrics.observed(snapshot_of([], named("first")), [])
        assert series(metrics) == before

    def test_a_rollouts_series_end_with_it(self, metrics: ControllerMetrics) -> None:
        """R-67"""
        metrics.observed(snapshot_of(fleet(3), a_deployment()), [])
        at_rest = series(metrics)
        metrics.observed(snapshot_of(fleet(3), deploying()), [])
        during = {name for name, _ in series(metrics) - at_rest}
        assert during == {
            "fleetpulse_rollout_replicas",
            "fleetpulse_rollout_ready_floor",
            "fleetpulse_rollout_started_timestamp_seconds",
            "fleetpulse_rollout_deadline_timestamp_seconds",
            "fleetpulse_rollout_stands",
        }
        metrics.observed(snapshot_of(fleet(3), a_deployment()), [])
        assert series(metrics) == at_rest


def causes(metrics: ControllerMetrics) -> dict[str, float | None]:
    """Return why the rollout stands still."""
    return {
        cause: value(metrics, "rollout_stands", deployment="demo", cause=cause)
        for cause in ("held", "paused", "awaiting_promotion")
    }


class TestPictures:
    def test_routes_are_counted_by_what_they_are(self, metrics: ControllerMetrics) -> None:
        leaving = a_route(6, status=RouteStatus.TERMINATING, stage=Stage.DRAINING)
        routes = [*fleet(4, bad=1), warming(5), leaving]
        metrics.observed(snapshot_of(routes, a_deployment(desired_replicas=7)), [])
        assert value(metrics, "replicas_wanted", deployment="demo") == 7
        counts = {
            state: value(metrics, "routes", deployment="demo", state=state)
            for state in ("ready", "running", "provisioning", "terminating")
        }
        assert counts == {"ready": 3, "running": 1, "provisioning": 1, "terminating": 1}

    def test_a_rollout_is_shown_by_its_two_sides(self, metrics: ControllerMetrics) -> None:
        routes = [*fleet(3, bad=1), a_route(4, revision_id=NEW.id)]
        metrics.observed(snapshot_of(routes, deploying(target=3)), [])

        def replicas(side: str, state: str) -> float | None:
            return value(metrics, "rollout_replicas", deployment="demo", side=side, state=state)

        assert (replicas("old", "ready"), replicas("old", "not_ready")) == (2, 1)
        assert (replicas("new", "ready"), replicas("new", "not_ready")) == (1, 0)
        assert value(metrics, "rollout_ready_floor", deployment="demo") == 3
        deadline_s = value(metrics, "rollout_deadline_timestamp_seconds", deployment="demo")
        assert deadline_s == NOW_MS / 1000 + 7200

    def test_who_is_kept_to_switch_back_to_makes_up_for_nobody(
        self, metrics: ControllerMetrics
    ) -> None:
        kept = fleet(3, first=4, traffic=Traffic.INACTIVE, traffic_ratio=0.0)
        routes = [*fleet(2, revision_id=NEW.id), *kept]
        metrics.observed(snapshot_of(routes, a_deployment(current=NEW, kept=OLD)), [])
        assert value(metrics, "routes", deployment="demo", state="ready") == 2
        assert value(metrics, "routes", deployment="demo", state="kept") == 3

    def test_greens_are_ready_on_the_new_side_and_who_promotes_is_waited_for(
        self, metrics: ControllerMetrics
    ) -> None:
        policy = Policy(strategy="blue-green", auto_promote=False)
        routes = [*fleet(3), *fleet(3, first=4, revision_id=NEW.id, traffic=Traffic.INACTIVE)]
        waiting = deploying(policy=policy, sub_step=SubStep.AWAITING_PROMOTION)
        metrics.observed(snapshot_of(routes, waiting), [])
        of = {"deployment": "demo", "state": "ready"}
        assert value(metrics, "rollout_replicas", side="new", **of) == 3
        assert value(metrics, "rollout_replicas", side="old", **of) == 3
        assert value(metrics, "rollout_ready_floor", deployment="demo") == 3
        assert causes(metrics) == {"held": 0, "paused": 0, "awaiting_promotion": 1}

    def test_a_pause_and_a_hold_move_the_deadline(self, metrics: ControllerMetrics) -> None:
        """S15"""
        policy = Policy(rollout_timeout_s=600)
        paused = deploying(rollout=a_rollout(policy, paused_at_ms=NOW_MS + 60_000))
        now_ms = NOW_MS + 90_000
        metrics.observed(snapshot_of(fleet(3), paused, now_ms=now_ms), [])
        ends_at_s = value(metrics, "rollout_deadline_timestamp_seconds", deployment="demo")
        assert ends_at_s == NOW_MS / 1000 + 630
        assert causes(metrics) == {"held": 0, "paused": 1, "awaiting_promotion": 0}
        span = HoldSpan(deployment_id=None, from_ms=NOW_MS + 40_000, to_ms=None)
        rolling = deploying(rollout=a_rollout(policy))
        seen = replace(snapshot_of(fleet(3), rolling, now_ms=now_ms), holds=(span,))
        metrics.observed(seen, [])
        ends_at_s = value(metrics, "rollout_deadline_timestamp_seconds", deployment="demo")
        assert ends_at_s == NOW_MS / 1000 + 650
        assert causes(metrics) == {"held": 1, "paused": 0, "awaiting_promotion": 0}

    def test_an_incident_is_shown_while_it_lasts(self, metrics: ControllerMetrics) -> None:
        metrics.observed(snapshot_of([]), [HoldCause.COVERAGE])
        assert value(metrics, "incident_active", kind="coverage") == 1
        metrics.observed(snapshot_of([]), [])
        assert value(metrics, "incident_active", kind="coverage") == 0


class TestCounting:
    def test_rows_written_are_taken_over_once(self, metrics: ControllerMetrics) -> None:
        """I10"""
        metrics.wrote({"routes": 3})
        metrics.wrote({"routes": 3, "history": 2})
        metrics.wrote({"routes": 5, "history": 2})
        assert value(metrics, "sql_writes_total", table="routes") == 5
        assert value(metrics, "sql_writes_total", table="history") == 2

    def test_evictions_are_counted_by_cause_and_other_changes_are_not(
        self, metrics: ControllerMetrics
    ) -> None:
        def change(category: str, code: str) -> RouteChange:
            return RouteChange(route=a_route(), category=category, message="", error_code=code)

        metrics.changed(
            [change(CATEGORY, ORPHAN), change(CATEGORY, HEALTH_POLICY), change("drain", "")]
        )
        assert value(metrics, "evictions_total", cause="orphan_revision") == 1
        assert value(metrics, "evictions_total", cause="health_policy") == 1

    def test_a_rollout_is_counted_when_it_ends(self, metrics: ControllerMetrics) -> None:
        """R-16"""
        deployment = deploying()

        def decided(end: Outcome | None) -> None:
            change = DeploymentChange(
                category="test", message="", lifecycle=Lifecycle.DEPLOYING, end_rollout=end
            )
            metrics.decided(Decision(deployment=deployment, change=change), [], NOW_MS + 90_000)

        decided(None)
        decided(Outcome.PROMOTED)
        labels = {"strategy": "rolling", "outcome": "promoted"}
        assert value(metrics, "rollouts_total", **labels) == 1
        assert value(metrics, "rollout_duration_seconds_sum", **labels) == 90

    def test_a_broken_invariant_is_counted_under_its_name(self, metrics: ControllerMetrics) -> None:
        """I5"""
        metrics.observed(snapshot_of([a_route(status=RouteStatus.TERMINATED)]), [])
        assert value(metrics, "invariant_violations_total", invariant="I5_terminal") == 1

    def test_the_target_sync_says_what_became_of_each(self, metrics: ControllerMetrics) -> None:
        """R-10"""
        metrics.targets_synced(written=3, skipped=2, failed=1)
        counts = [
            value(metrics, "targets_synced_total", result=result)
            for result in ("written", "skipped", "failed")
        ]
        assert counts == [3, 2, 1]
