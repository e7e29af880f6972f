"""A verdict that changes too often stays down until it has calmed down."""

import pytest

from probe.health import Outcome, observe
from probe.reasons import Reason
from probe.schedule.damping import Damping, Flaps
from probe.schedule.scheduler import Check, Scheduler
from probe.status_text import StatusText
from probe.wire import Keys, decode_status
from tests.fakes.entries import target
from tests.fakes.virtual import PASSED, REFUSED, Behaviour, VirtualProber


def flaps_every(period_s: float, *, until: float) -> Behaviour:
    """Fail and pass in turns, a period each, then pass."""

    def behaviour(_check: Check, now: float) -> Outcome:
        return REFUSED if now < until and int(now / period_s) % 2 else PASSED

    return behaviour


def prober_of(
    behaviour: Behaviour, damping: Damping | None = None, *, retries: int = 2
) -> VirtualProber:
    return VirtualProber(
        [target(1, interval_s=1.0, max_retries=retries)],
        scheduler=Scheduler(damping=damping or Damping()),
        behaviour=behaviour,
    )


def only(prober: VirtualProber) -> Check:
    (check,) = prober.scheduler
    return check


class TestStory:
    def test_the_third_fall_within_minutes_is_one_too_many(self) -> None:
        prober = prober_of(flaps_every(5.0, until=1060.0))
        prober.run(60)
        assert only(prober).damped
        assert prober.scheduler.damped == 1
        falls = [change for change in prober.sweep.take_transitions() if not change.healthy]
        assert len(falls) == 3

    def test_while_damped_what_passes_and_fails_is_counted_as_ever(self) -> None:
        prober = prober_of(flaps_every(5.0, until=1060.0))
        prober.run(62)
        check, behaviour = only(prober), prober.wire.behaviour
        assert check.damped
        for _ in range(20):
            before, ended_at = check.streak, check.ended_at
            prober.run(1.0)
            if check.ended_at == ended_at:
                continue
            expected, transition = observe(
                before,
                behaviour(check, check.started_at) or PASSED,
                healthy_threshold=1,
                max_retries=2,
                damped=True,
            )
            assert (check.streak, transition) == (expected, None)

    def test_two_falls_are_not_damped(self) -> None:
        prober = prober_of(flaps_every(5.0, until=1019.0))
        prober.run(60)
        assert (only(prober).healthy, prober.scheduler.damped) == (True, 0)

    def test_falls_far_apart_are_not_damped(self) -> None:
        prober = prober_of(flaps_every(60.0, until=10_000.0), Damping(half_life_s=30.0))
        prober.run(900)
        assert prober.scheduler.damped == 0
        assert len(prober.sweep.take_transitions()) > 10

    def test_while_damped_passes_do_not_make_healthy_and_after_it_the_next_one_does(self) -> None:
        """R-02: the delay is the whole price, the first pass after it counts with the others."""
        prober = prober_of(flaps_every(5.0, until=1040.0))
        prober.run(60)
        flaps = only(prober).flaps
        assert flaps is not None
        prober.run(flaps.until - prober.now - 0.05)
        assert (only(prober).healthy, only(prober).damped) == (False, True)
        assert only(prober).successes > 100
        prober.run(1.1)
        assert (only(prober).healthy, only(prober).damped) == (True, False)
        assert prober.scheduler.damped == 0

    def test_damping_ends_in_time_for_a_target_that_goes_on_failing(self) -> None:
        prober = prober_of(
            lambda _check, now: REFUSED if now > 1060 or int(now / 5) % 2 else PASSED,
            Damping(half_life_s=60.0),
        )
        prober.run(60)
        assert prober.scheduler.damped == 1
        prober.run(180)
        assert (only(prober).healthy, prober.scheduler.damped) == (False, 0)

    def test_a_target_that_never_changes_its_verdict_has_no_penalty(self) -> None:
        for behaviour in (flaps_every(5.0, until=0.0), lambda _check, _now: REFUSED):
            prober = prober_of(behaviour)
            prober.run(100)
            assert only(prober).flaps is None

    def test_failures_within_the_retry_budget_add_no_penalty(self) -> None:
        prober = prober_of(flaps_every(1.0, until=2000.0), retries=9)
        prober.run(200)
        assert only(prober).flaps is None

    def test_a_damped_target_that_goes_or_comes_again_is_counted_right(self) -> None:
        prober = prober_of(flaps_every(5.0, until=1060.0))
        prober.run(60)
        changed = target(1, interval_s=1.0, max_retries=2, timeout_s=3.0)
        prober.sweep.replace(0, [changed], now=prober.now)
        assert (only(prober).damped, prober.scheduler.damped) == (True, 1)
        prober.sweep.replace(0, [target(1, generation=5)], now=prober.now)
        assert (only(prober).damped, prober.scheduler.damped) == (False, 0)
        prober.sweep.replace(0, [], now=prober.now)
        assert prober.scheduler.damped == 0

    def test_a_damped_status_says_so_and_for_how_long(self) -> None:
        """R-55."""
        prober = prober_of(flaps_every(5.0, until=1060.0))
        prober.run(70)
        check = only(prober)
        assert check.outcome is not None
        assert check.flaps is not None
        entry = StatusText(Keys(), prober="p").entry(check, check.outcome, 0.0)
        found = decode_status(entry.split("\r\n")[3].encode())
        left_s = round((check.flaps.until - check.ended_at) / 10) * 10
        assert (found.healthy, found.reason) == (False, Reason.OK)
        assert found.detail == f"damped for {left_s} s more"

    def test_suppress_0_damps_nobody(self) -> None:
        prober = prober_of(flaps_every(5.0, until=1e6), Damping(suppress=0.0))
        prober.run(200)
        assert prober.scheduler.damped == 0
        assert len(prober.sweep.take_transitions()) >= 38


@pytest.mark.parametrize(
    ("penalty", "until"), [(2.9, None), (3.0, 300.0), (7.0, 600.0), (1e9, 900.0)]
)
def test_how_long_a_fall_is_held_against_a_target(penalty: float, until: float | None) -> None:
    after = Damping().changed(Flaps(penalty, 0.0, 0.0), 0.0, healthy=False)
    assert after is not None
    assert (after.until if after.until > 0 else None) == until


def test_a_rise_never_damps() -> None:
    after = Damping().changed(Flaps(100.0, 0.0, 0.0), 0.0, healthy=True)
    assert after is not None
    assert after.until < 0
