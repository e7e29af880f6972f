"""Crash loops: the wait grows, is told, and is over after a stable run."""

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.model import Health, Lifecycle, RouteStatus
from controller.reconcile.deployments import CheckReplicas
from controller.rollout import scale
from controller.rollout.backoff import FIRST_S, MAX_S, STABLE_S, BackOff, Failure, back_off
from tests.fakes.failures import KnownFailures
from tests.fakes.nouns import DEMO, NOW_MS, a_deployment, a_revision, a_route, fleet, fresh_ids
from tests.fakes.reconcile import ALWAYS, a_world


def failure(created_s: float, *, lived_s: float = 1.0, reason: str = "exited") -> Failure:
    created_at_ms = int(created_s * 1000)
    return Failure(
        created_at_ms=created_at_ms,
        failed_at_ms=created_at_ms + int(lived_s * 1000),
        reason=reason,
    )


def waits(lived_s: float, attempts: int) -> list[float]:
    """Let every replica end after `lived_s`; return how long each next one waits."""
    failures: list[Failure] = []
    found, now_s = [], 0.0
    for _ in range(attempts):
        failures.append(failure(now_s, lived_s=lived_s))
        ended_s = now_s + lived_s
        wait = back_off(failures, now_ms=int(ended_s * 1000))
        found.append(0.0 if wait is None else wait.until_ms / 1000 - ended_s)
        now_s = ended_s + found[-1]
    return found


def test_the_first_early_end_is_mended_at_once_and_then_the_wait_doubles_to_its_limit() -> None:
    assert waits(1.0, 9) == [0.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0, 300.0]


def test_replicas_made_together_are_one_attempt() -> None:
    together = [failure(0.0, lived_s=n) for n in (1, 2, 3)]
    assert back_off(together, now_ms=4_000) is None
    wait = back_off([*together, failure(5.0), failure(5.0)], now_ms=6_000)
    assert wait is not None
    assert wait.attempts == 2


def test_who_lived_long_enough_did_not_end_early() -> None:
    assert waits(STABLE_S, 5) == [0.0] * 5
    assert max(waits(STABLE_S - 1, 20)) == MAX_S


def test_a_stable_run_forgives() -> None:
    row = [failure(n * 20.0) for n in range(6)]
    end_s = 101.0
    assert back_off(row, now_ms=int(end_s * 1000)) is not None
    long_after = failure(end_s + STABLE_S + MAX_S + 1)
    assert back_off([*row, long_after], now_ms=long_after.failed_at_ms) is None


def test_when_the_wait_is_over_it_is_over() -> None:
    row = [failure(0.0), failure(1.0)]
    assert back_off(row, now_ms=11_999) is not None
    assert back_off(row, now_ms=12_000) is None


@given(st.lists(st.tuples(st.integers(0, 5_000), st.integers(0, 1_000)), max_size=30))
def test_no_row_of_failures_waits_longer_than_the_limit(ends: list[tuple[int, int]]) -> None:
    failures = [failure(created, lived_s=lived) for created, lived in ends]
    early = [one for one, (_, lived) in zip(failures, ends, strict=True) if lived < STABLE_S]
    now_ms = max((one.failed_at_ms for one in early), default=0)
    wait = back_off(failures, now_ms=now_ms)
    assert wait is None or 0 < wait.until_ms - now_ms <= MAX_S * 1000
    assert wait is None or wait.until_ms - now_ms >= FIRST_S * 1000


class TestScaling:
    def test_nothing_is_made_while_waiting_and_the_reason_is_told(self) -> None:
        wait = BackOff(attempts=3, until_ms=NOW_MS + 9_000, message="3 attempts ended early")
        decision = scale.step(a_deployment(replicas=3), fleet(1), fresh=fresh_ids(), wait=wait)
        assert decision is not None
        assert decision.create == ()
        assert decision.routes == ()
        (note,) = decision.notes
        assert (note.category, note.result) == ("check_replicas", "waiting")
        assert note.message == (
            "backing off: 1 replicas of revision 1 active, 3 wanted; 3 attempts ended early"
        )

    def test_scaling_in_does_not_wait(self) -> None:
        wait = BackOff(attempts=3, until_ms=NOW_MS + 9_000, message="")
        decision = scale.step(a_deployment(replicas=1), fleet(3), fresh=fresh_ids(), wait=wait)
        assert decision is not None
        assert len(decision.routes) == 2

    @pytest.mark.parametrize(
        ("given", "missing"),
        [
            ({"replicas": 3}, 1),
            ({"replicas": 1}, -1),
            ({"replicas": 3, "lifecycle": Lifecycle.DEPLOYING}, 0),
            ({"replicas": 3, "current": a_revision(1, external=True)}, 0),
            ({"replicas": 3, "current": None}, 0),
        ],
    )
    def test_what_is_missing_is_counted_where_the_count_is_kept(
        self, given: dict[str, object], missing: int
    ) -> None:
        assert scale.missing(a_deployment(**given), fleet(2)) == missing

    @given(
        st.lists(st.sampled_from([*Health, None]), max_size=12),
        st.integers(0, 12),
    )
    def test_scaling_in_takes_no_ready_replica_while_another_would_do(
        self, kinds: Sequence[Health | None], target: int
    ) -> None:
        routes = [
            a_route(number, status=RouteStatus.PROVISIONING)
            if health is None
            else a_route(number, health=health)
            for number, health in enumerate(kinds, start=1)
        ]
        decision = scale.step(a_deployment(replicas=target), routes, fresh=fresh_ids())
        gone = [] if decision is None else [change.route for change in decision.routes]
        ready = sum(route.ready for route in routes)
        left = ready - sum(route.ready for route in gone)
        assert left >= min(ready, target)
        ranks = [_rank(route.health, route.status) for route in gone]
        assert all(first <= second for first, second in pairwise(ranks))


def _rank(health: Health, status: RouteStatus) -> int:
    order = [Health.UNHEALTHY, Health.DEGRADED, Health.NOT_CHECKED, Health.HEALTHY]
    return 1 + order.index(health) if status is RouteStatus.RUNNING else 0


class TestHandler:
    async def test_only_deployments_that_lack_replicas_are_asked_about(self) -> None:
        row = [failure(NOW_MS / 1000 - age_s) for age_s in (30, 20, 3)]
        known = KnownFailures({DEMO: row})
        handler = CheckReplicas(ALWAYS, known)
        whole = a_deployment(replicas=2)
        await handler.look(a_world(fleet(2), whole), {DEMO: fleet(2)})
        assert known.asked == [[]]
        short = a_deployment(replicas=3)
        world = a_world(fleet(2), short)
        await handler.look(world, {DEMO: fleet(2)})
        decision = handler.decide(world, short, fleet(2))
        assert known.asked[1] == [DEMO]
        assert decision is not None
        assert "3 attempts in a row ended early" in decision.notes[0].message
