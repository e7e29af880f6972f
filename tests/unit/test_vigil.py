"""From one look to the next: each breach is found and told once, and a lawful life is quiet."""

from collections.abc import Sequence
from dataclasses import replace
from time import perf_counter
from typing import Any

import pytest

from controller.invariants import Invariant
from controller.model import (
    Deployment,
    DeploymentId,
    HoldSpan,
    Lifecycle,
    Policy,
    Route,
    RouteStatus,
    Snapshot,
    Stage,
    SubStep,
)
from controller.vigil import SLACK_MS, STILL_MS, Vigil
from tests.fakes.nouns import (
    DEMO,
    NEW,
    NOW_MS,
    OLD,
    a_deployment,
    a_revision,
    a_route,
    deploying,
    fleet,
    snapshot_of,
    warming,
)

MINUTE_MS = 60_000
LATE_MS = 2 * MINUTE_MS + SLACK_MS + 1
"""More than two periods of a minute."""


class Looks:
    """Looks at a fleet, a minute apart unless said otherwise."""

    def __init__(self) -> None:
        self.vigil = Vigil(evict_s=60, deploying_s=60)
        self.now_ms = NOW_MS

    def see(
        self,
        routes: Sequence[Route],
        *deployments: Deployment,
        after_ms: int = MINUTE_MS,
        held: bool = False,
        written: int = 0,
        **given: Any,  # noqa: ANN401 - any field of a snapshot
    ) -> list[Invariant]:
        self.now_ms += after_ms
        snapshot = snapshot_of(routes, *deployments, now_ms=self.now_ms)
        return list(
            self.vigil.see(replace(snapshot, **given), held=held, written=written),
        )

    def watch(
        self,
        routes: Sequence[Route],
        *deployments: Deployment,
        for_ms: int,
        held: bool = False,
    ) -> list[Invariant]:
        """Look each minute for so long, and once more."""
        looks = range(for_ms // MINUTE_MS + 1)
        return [found for _ in looks for found in self.see(routes, *deployments, held=held)]


@pytest.fixture
def looks() -> Looks:
    return Looks()


def later(route: Route, **given: Any) -> Route:  # noqa: ANN401 - any field of a route
    return replace(route, version=route.version + 1, **given)


class TestTerminal:
    def test_a_life_in_order_is_quiet(self, looks: Looks) -> None:
        """I5"""
        born = warming(4, created_at_ms=NOW_MS + MINUTE_MS, version=1)
        serving = later(born, status=RouteStatus.RUNNING, stage=None)
        leaving = later(serving, status=RouteStatus.TERMINATING, stage=Stage.DRAINING)
        for routes in ([], [born], [serving], [leaving], []):
            assert looks.see([*fleet(3), *routes]) == []

    def test_one_that_was_gone_and_is_back_goes_off(self, looks: Looks) -> None:
        """I5, R-34"""
        looks.see(fleet(3))
        assert looks.see(fleet(2)) == []
        assert looks.see(fleet(3)) == [Invariant.TERMINAL]

    def test_a_deployment_that_can_be_read_again_is_quiet(self, looks: Looks) -> None:
        other = replace(a_deployment(), id=DeploymentId("other"), name="other", replicas=0)
        looks.see(fleet(3))
        assert looks.see([], other) == []
        assert looks.see(fleet(3), a_deployment(), other) == []

    def test_one_that_left_and_serves_again_goes_off(self, looks: Looks) -> None:
        """I5"""
        leaving = a_route(1, status=RouteStatus.TERMINATING, stage=Stage.DRAINING)
        looks.see([leaving, *fleet(2, first=2)])
        assert looks.see([later(a_route(1)), *fleet(2, first=2)]) == [Invariant.TERMINAL]


class TestDeadline:
    POLICY = Policy(rollout_timeout_s=600)

    def rolling(self, **given: Any) -> Deployment:  # noqa: ANN401 - any field of a deployment
        return deploying(policy=self.POLICY, sub_step=SubStep.PROGRESSING, **given)

    def test_a_rollout_far_beyond_its_deadline_goes_off_once(self, looks: Looks) -> None:
        """I6"""
        assert looks.see(fleet(3), self.rolling(), after_ms=600_000 + MINUTE_MS) == []
        for _ in range(LATE_MS // MINUTE_MS):
            assert looks.see(fleet(3), self.rolling()) == []
        assert looks.see(fleet(3), self.rolling()) == [Invariant.DEADLINE]
        assert looks.see(fleet(3), self.rolling()) == []

    def test_while_nobody_could_look_nobody_could_end_it(self, looks: Looks) -> None:
        """I6"""
        assert looks.see(fleet(3), self.rolling(), after_ms=600_000 + MINUTE_MS) == []
        assert looks.see(fleet(3), self.rolling(), after_ms=10 * LATE_MS) == []

    def test_hold_stops_its_clock(self, looks: Looks) -> None:
        """I6, I11"""
        late_ms = 600_000 + LATE_MS
        assert looks.see(fleet(3), self.rolling(), after_ms=late_ms, held=True) == []
        span = HoldSpan(deployment_id=None, from_ms=NOW_MS, to_ms=NOW_MS + late_ms)
        assert looks.see(fleet(3), self.rolling(), holds=(span,)) == []

    def test_the_way_back_has_a_deadline_of_its_own(self, looks: Looks) -> None:
        """I6"""
        back = self.rolling(phase_entered_at_ms=NOW_MS + 600_000)
        back = replace(back, sub_step=SubStep.ROLLING_BACK)
        for _ in range((1_200_000 + LATE_MS + MINUTE_MS) // MINUTE_MS):
            assert looks.see(fleet(3), back) == []
        assert looks.see(fleet(3), back) == [Invariant.DEADLINE]


class TestOrphans:
    ORPHAN = a_route(9, revision_id=a_revision(7).id)

    def test_one_that_outlives_two_periods_goes_off_once(self, looks: Looks) -> None:
        """I9"""
        routes = [*fleet(3), self.ORPHAN]
        assert looks.watch(routes, for_ms=LATE_MS) == []
        assert looks.see(routes) == [Invariant.ORPHANS]
        assert looks.see(routes) == []

    def test_while_nobody_could_look_nobody_could_take_it_out(self, looks: Looks) -> None:
        """I9"""
        routes = [*fleet(3), self.ORPHAN]
        assert looks.see(routes) == []
        assert looks.see(routes, after_ms=LATE_MS) == []
        assert looks.watch(routes, for_ms=LATE_MS + MINUTE_MS) == [Invariant.ORPHANS]

    def test_hold_and_the_floor_keep_it_lawfully(self, looks: Looks) -> None:
        """I9"""
        assert looks.watch([*fleet(3), self.ORPHAN], for_ms=2 * LATE_MS, held=True) == []
        assert Looks().watch([*fleet(2), self.ORPHAN], for_ms=2 * LATE_MS) == []

    @pytest.mark.parametrize(
        "deployment",
        [a_deployment(current=None), a_deployment(lifecycle=Lifecycle.DESTROYING)],
    )
    def test_without_a_revision_in_use_nobody_is_an_orphan(
        self, looks: Looks, deployment: Deployment
    ) -> None:
        """R-20d"""
        assert looks.watch([self.ORPHAN], deployment, for_ms=2 * LATE_MS) == []


class TestRest:
    def test_rows_written_while_nothing_changes_go_off(self, looks: Looks) -> None:
        """I10"""
        assert looks.see(fleet(3), written=5) == []
        assert looks.see(fleet(3), written=5) == []
        assert looks.see(fleet(3), written=6) == []
        assert looks.see(fleet(3), written=6) == [Invariant.REST]
        assert looks.see(fleet(3), written=6) == []

    def test_rows_written_with_a_change_are_quiet(self, looks: Looks) -> None:
        """I10"""
        looks.see(fleet(3), written=5)
        assert looks.see([later(a_route(1)), *fleet(2, first=2)], written=6) == []
        assert looks.see([later(a_route(1)), *fleet(2, first=2)], written=6) == []

    def test_a_write_that_the_look_was_too_early_for_is_quiet(self, looks: Looks) -> None:
        """I10"""
        looks.see(fleet(3), written=5)
        assert looks.see(fleet(3), written=6) == []
        assert looks.see([later(a_route(1)), *fleet(2, first=2)], written=6) == []


class TestConvergence:
    def test_a_count_that_nobody_corrects_goes_off(self, looks: Looks) -> None:
        """I12"""
        assert looks.watch(fleet(2), for_ms=STILL_MS) == []
        assert looks.see(fleet(2)) == [Invariant.CONVERGENCE]

    def test_while_things_move_or_are_held_it_is_quiet(self, looks: Looks) -> None:
        """I12"""
        route = a_route(1)
        for _ in range(4):
            assert looks.watch([route], for_ms=STILL_MS - MINUTE_MS) == []
            route = later(route)
        assert looks.watch([route], for_ms=2 * STILL_MS, held=True) == []

    @pytest.mark.parametrize(
        "deployment", [a_deployment(current=a_revision(1, external=True)), deploying()]
    )
    def test_where_others_keep_the_count_it_is_quiet(
        self, looks: Looks, deployment: Deployment
    ) -> None:
        found = looks.watch(fleet(2), deployment, for_ms=2 * STILL_MS)
        assert Invariant.CONVERGENCE not in found


def a_large_fleet(size: int) -> Snapshot:
    """Return so many routes in a tenth as many deployments."""
    deployments = [
        replace(a_deployment(replicas=10), id=DeploymentId(f"{DEMO}-{n}"), current=OLD)
        for n in range(size // 10)
    ]
    routes = [
        a_route(n, deployment_id=deployments[n // 10].id, revision_id=OLD.id) for n in range(size)
    ]
    assert NEW.id != OLD.id
    return snapshot_of(routes, *deployments)


def test_ten_thousand_routes_cost_little_beside_making_them() -> None:
    vigil = Vigil(evict_s=60, deploying_s=30)
    made_s, seen_s = [], []
    for _ in range(3):
        started = perf_counter()
        snapshot = a_large_fleet(10_000)
        made_s.append(perf_counter() - started)
        started = perf_counter()
        assert vigil.see(snapshot, held=False) == ()
        seen_s.append(perf_counter() - started)
    assert min(seen_s) < min(made_s)
