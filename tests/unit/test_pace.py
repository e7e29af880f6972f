"""How far the beat bends: at the edge of a verdict, when long down, when everything is."""

from itertools import pairwise

import pytest

from probe.health import Outcome
from probe.schedule.bend import SLACK_S
from probe.schedule.damping import Damping
from probe.schedule.pace import Pace
from probe.schedule.scheduler import Check, Scheduler
from probe.wire import status_ttl_s
from tests.fakes.entries import target
from tests.fakes.virtual import BAD_STATUS, PASSED, REFUSED, Behaviour, VirtualProber

UNDAMPED = Damping(suppress=0.0)


def fails_after(moment: float) -> Behaviour:
    return lambda _check, now: PASSED if now < moment else REFUSED


def only(prober: VirtualProber) -> Check:
    (check,) = prober.scheduler
    return check


class TestEdge:
    def test_a_target_in_its_retry_budget_is_looked_at_four_times_an_interval(self) -> None:
        prober = VirtualProber(
            [target(1, interval_s=10.0, max_retries=6)], behaviour=fails_after(1030.0)
        )
        prober.run(60)
        failed = [now for now, _ in prober.wire.starts if now >= 1030.0]
        assert all(2.4 <= after - now <= 2.6 for now, after in pairwise(failed[:6]))
        assert failed[6] - failed[5] > 2.6
        assert only(prober).changed_at == pytest.approx(failed[5], abs=0.02)

    @pytest.mark.parametrize(("interval_s", "looks"), [(1.0, 2), (2.0, 4), (10.0, 4), (60.0, 4)])
    def test_so_many_looks_fit_into_an_interval(self, interval_s: float, looks: int) -> None:
        def one_fails(check: Check, now: float) -> Outcome:
            return REFUSED if check.interval_s == interval_s and now > 1005.0 else PASSED

        targets = [target(n, interval_s=0.5) for n in range(2, 50)]
        failing = target(1, interval_s=interval_s, max_retries=500)
        prober = VirtualProber([failing, *targets], behaviour=one_fails)
        prober.wire.answer_s = 0.08
        prober.run(5 + 2 * interval_s)
        starts = prober.run(10 * interval_s)
        assert sum(check.interval_s == interval_s for _, check in starts) == 10 * looks

    def test_a_steady_target_is_never_hastened(self) -> None:
        for behaviour in (fails_after(0.0), fails_after(1e9)):
            prober = VirtualProber([target(1, interval_s=2.0)], behaviour=behaviour)
            prober.run(60)
            assert prober.scheduler.hastened == 0
            assert 30 <= len(prober.wire.starts) <= 31

    def test_a_rise_that_needs_several_passes_is_hastened_too(self) -> None:
        prober = VirtualProber([target(1, interval_s=20.0, healthy_threshold=4)])
        starts = prober.run(21)
        assert only(prober).healthy
        assert len(starts) >= 4

    def test_no_two_probes_of_a_target_are_closer_than_its_edge_interval(self) -> None:
        def flaps(_check: Check, now: float) -> Outcome:
            return PASSED if int(now / 3) % 2 else REFUSED

        targets = [target(n, interval_s=1.0 + n) for n in range(5)]
        prober = VirtualProber(targets, behaviour=flaps)
        prober.run(2)
        starts = prober.run(60)
        for check in prober.scheduler:
            times = [now for now, started in starts if started is check]
            edge = max(check.interval_s / 4, 0.5)
            assert min(b - a for a, b in pairwise(times)) >= edge - SLACK_S - 0.021

    def test_an_interval_too_short_to_be_divided_stays_as_it_is(self) -> None:
        prober = VirtualProber(
            [target(1, interval_s=0.5, max_retries=50)], behaviour=fails_after(1005.0)
        )
        prober.run(20)
        assert prober.scheduler.hastened == 0

    def test_share_0_keeps_every_target_to_its_interval(self) -> None:
        prober = VirtualProber(
            [target(1, interval_s=4.0, max_retries=50)],
            scheduler=Scheduler(Pace(share=0.0)),
            behaviour=fails_after(1010.0),
        )
        prober.run(60)
        assert 15 <= len(prober.wire.starts) <= 16


def everything(outcome: Outcome) -> Behaviour:
    return lambda _check, _now: outcome


def all_flap(_check: Check, now: float) -> Outcome:
    return PASSED if int(now / 2) % 2 else BAD_STATUS


class TestConstantWork:
    """S18: work does not follow the health of the fleet."""

    @pytest.mark.parametrize("share", [0.05, 0.2])
    @pytest.mark.parametrize(
        "behaviour",
        [everything(PASSED), fails_after(1004.0), all_flap],
        ids=["all pass", "all fail", "all flap"],
    )
    def test_probes_stay_within_their_share_whatever_the_fleet_does(
        self, behaviour: Behaviour, share: float
    ) -> None:
        pace = Pace(share=share, backoff_after_s=5.0, backoff_max=8)
        prober = VirtualProber(
            [target(n, interval_s=2.0, timeout_s=1.0) for n in range(400)],
            scheduler=Scheduler(pace, UNDAMPED),
            behaviour=behaviour,
        )
        prober.run(4)
        starts = prober.run(40)
        expected = 400 / 2.0 * 40
        assert (1 - share) * expected - 5 <= len(starts) <= (1 + share) * expected + 5

    def test_what_is_left_out_of_a_fleet_long_down_is_at_most_the_share(self) -> None:
        prober = VirtualProber(
            [target(n, interval_s=2.0, timeout_s=1.0, max_retries=1) for n in range(400)],
            scheduler=Scheduler(Pace(share=0.05, backoff_after_s=5.0, backoff_max=8)),
            behaviour=fails_after(1004.0),
        )
        prober.run(20)
        starts = prober.run(40)
        assert 0.94 * 8000 <= len(starts) <= 0.96 * 8000
        assert prober.scheduler.rested >= 390

    def test_one_target_long_down_is_probed_at_half_its_rate_and_again_at_all_of_it(self) -> None:
        def down_for_a_while(check: Check, now: float) -> Outcome:
            return REFUSED if check.replica_id == first and 1010 < now < 1060 else PASSED

        targets = [target(n, interval_s=1.0, timeout_s=1.0, max_retries=2) for n in range(50)]
        first = targets[0].replica_id
        prober = VirtualProber(
            targets, scheduler=Scheduler(Pace(backoff_after_s=10.0)), behaviour=down_for_a_while
        )
        prober.run(25)
        times = [now for now, check in prober.run(20) if check.replica_id == first]
        assert len(times) == 10
        (check,) = (c for c in prober.scheduler if c.replica_id == first)
        assert prober.scheduler.interval_s(check) == 2.0
        prober.run(25)
        assert check.healthy
        assert prober.scheduler.interval_s(check) == 1.0
        assert len([1 for _, started in prober.run(10) if started is check]) == 10

    def test_a_replica_that_never_was_healthy_is_not_left_alone(self) -> None:
        """It may be loading its model: its first pass is what somebody waits for."""
        prober = VirtualProber(
            [target(1, interval_s=1.0)],
            scheduler=Scheduler(Pace(backoff_after_s=2.0)),
            behaviour=everything(REFUSED),
        )
        assert len(prober.run(60)) >= 59


@pytest.mark.parametrize("interval_s", [0.1, 1.0, 10.0, 39.0, 100.0, 1200.0])
@pytest.mark.parametrize("timeout_s", [0.5, 15.0, 110.0])
@pytest.mark.parametrize("stretch", [1.0, 1.7])
def test_a_target_long_down_is_probed_three_times_before_its_status_expires(
    interval_s: float, timeout_s: float, stretch: float
) -> None:
    pace = Pace(backoff_max=8)
    spacing = pace.spacing(1e6, interval_s=interval_s, timeout_s=timeout_s, stretch=stretch)
    assert spacing in (1, 2, 4, 8)
    if spacing > 1:
        life_s = 3 * spacing * stretch * interval_s + timeout_s + pace.flush_s
        assert life_s <= status_ttl_s(interval_s)
