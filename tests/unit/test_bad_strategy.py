"""A strategy that raises is the affair of the deployments that use it, and of nobody else."""

from dataclasses import replace

import pytest
import structlog.testing

from controller.metrics import ControllerMetrics
from controller.model import DeploymentId, Health, Policy
from controller.reconcile.health import Evict
from controller.rollout.bluegreen import BLUE_GREEN
from controller.rollout.counting import Bounds
from controller.rollout.strategies import STRATEGIES
from controller.route.evict import Evictions, decide
from controller.route.guard import Budget, Gate
from controller.vigil import SLACK_MS, Vigil
from tests.fakes.handled import changes_of
from tests.fakes.nouns import (
    NOW_MS,
    a_deployment,
    a_view,
    as_said,
    deploying,
    fleet,
    snapshot_of,
)
from tests.fakes.reconcile import ALWAYS, a_world

BAD = DeploymentId("bad")
POLICY = Policy(strategy="blue-green")


@pytest.fixture(autouse=True)
def _broken(monkeypatch: pytest.MonkeyPatch) -> None:
    def bounds(policy: Policy, target: int) -> Bounds:
        raise ZeroDivisionError(f"{policy.strategy} of {target}")

    monkeypatch.setitem(STRATEGIES, "blue-green", replace(BLUE_GREEN, bounds=bounds))


ILL = fleet(10, bad=1)
THEIRS = fleet(10, bad=1, first=20, deployment_id=BAD)
ORPHANS = fleet(2, first=40, deployment_id=BAD, revision_id="revision-0")
DEPLOYMENTS = (
    a_deployment(replicas=10),
    a_deployment(id=BAD, name="bad", replicas=10, policy=POLICY),
)


class TestEviction:
    async def test_the_neighbours_ill_replica_goes_and_nobody_of_its_own(self) -> None:
        """R-15: with it in the fleet no replica of any deployment was evicted any more."""
        routes = [*ILL, *THEIRS, *ORPHANS]
        world = a_world(routes, *DEPLOYMENTS, view=a_view(as_said(routes)))
        metrics = ControllerMetrics()
        evict = Evict(ALWAYS, metrics)
        with structlog.testing.capture_logs() as logs:
            assert set(await changes_of(evict, world)) == {ILL[0].id}
            assert set(await changes_of(evict, world)) == {ILL[0].id}
        told = [entry for entry in logs if entry["event"] == "floor_unknown"]
        assert [(each["deployment"], each["why"]) for each in told] == [
            ("bad", "ZeroDivisionError: blue-green of 10")
        ]
        count = metrics.registry.get_sample_value
        assert count("fleetpulse_reconcile_failures_total", {"handler": "evict"}) == 2
        assert count("fleetpulse_evictions_blocked_total", {"cause": "no_floor"}) == 2

    def test_force_takes_nobody_out_where_the_floor_is_not_known(self) -> None:
        """S21"""
        forced = replace(DEPLOYMENTS[1], forced_until_ms=NOW_MS + 60_000)
        routes = [*THEIRS, *ORPHANS]
        found = decide(
            snapshot_of(routes, forced),
            a_view(as_said(routes)),
            hold=frozenset(),
            budget=Budget(),
            floors={},
            period_s=60.0,
        )
        assert found == Evictions(blocked={THEIRS[0].id: frozenset({Gate.NO_FLOOR})})


def test_a_scrape_shows_the_rollouts_beside_it() -> None:
    """R-15: one of them took the whole page of metrics away."""
    bad = deploying(policy=POLICY, id=BAD, name="bad")
    metrics = ControllerMetrics()
    metrics.observed(snapshot_of([], bad, deploying()), ())
    value = metrics.registry.get_sample_value
    assert value("fleetpulse_rollout_ready_floor", {"deployment": "demo"}) is not None
    assert value("fleetpulse_rollout_ready_floor", {"deployment": "bad"}) is None
    assert value("fleetpulse_replicas_wanted", {"deployment": "bad"}) == bad.target_count


def test_the_watch_over_its_neighbours_goes_on() -> None:
    """R-15, I9"""
    mine = fleet(2, first=60, revision_id="revision-0", health=Health.UNHEALTHY)
    vigil, told = Vigil(evict_s=60.0, deploying_s=30.0), list[str]()
    for look in range(6):
        now_ms = NOW_MS + look * (SLACK_MS - 1)
        told += vigil.see(snapshot_of([*mine, *ORPHANS], *DEPLOYMENTS, now_ms=now_ms), held=False)
    assert told == ["I9_orphans", "I9_orphans"]
