"""Who starts when not all can."""

from collections import Counter

import pytest

from probe.health import Outcome
from probe.schedule.scheduler import Check, Scheduler
from tests.fakes.entries import target
from tests.fakes.virtual import PASSED, VirtualProber


def holes(check: Check, _now: float) -> Outcome | None:
    return None if check.deployment.startswith("hole") else PASSED


def ages(prober: VirtualProber, deployment: str) -> float:
    """Return the age of the oldest result of a deployment."""
    return max(prober.now - c.ended_at for c in prober.scheduler if c.deployment == deployment)


@pytest.mark.parametrize("hogs", [1, 3])
def test_black_holes_cannot_starve_another_deployment(hogs: int) -> None:
    """R-54: neither now nor when they have had all night to take the room."""
    targets = [
        target(
            n,
            deployment=f"hole-{n % hogs}" if n >= 20 else "good",
            interval_s=2.0,
            timeout_s=30.0,
            connect_timeout_s=30.0,
        )
        for n in range(1020)
    ]
    prober = VirtualProber(targets, max_in_flight=100, behaviour=holes)
    prober.run(20)
    before = {c.replica_id: c.seq for c in prober.scheduler if c.deployment == "good"}
    for _ in range(20):
        prober.run(1)
        assert ages(prober, "good") <= 1.5 * 2.0
        assert prober.sweep.in_flight <= 100
    after = {c.replica_id: c.seq for c in prober.scheduler if c.deployment == "good"}
    assert all(after[key] - before[key] == 10 for key in before)


@pytest.mark.parametrize(("share", "each", "free"), [(0.5, 25, 25), (0.75, 30, 10)])
def test_greedy_deployments_share_and_leave_room(share: float, each: int, free: int) -> None:
    """With `a = share / (1 - share)`, n of them get `a / (1 + n a)` each."""
    targets = [
        target(n, deployment=f"hole-{n % 3}", interval_s=1.0, timeout_s=10.0, connect_timeout_s=10)
        for n in range(600)
    ]
    scheduler = Scheduler(deployment_share=share)
    prober = VirtualProber(targets, scheduler=scheduler, max_in_flight=100, behaviour=holes)
    prober.run(60)
    shares = Counter(check.deployment for check in prober.scheduler if check.in_flight)
    assert set(shares) == {"hole-0", "hole-1", "hole-2"}
    assert all(held == pytest.approx(each, abs=8) for held in shares.values())
    assert 100 - prober.sweep.in_flight == pytest.approx(free, abs=5)


def test_a_lone_deployment_may_use_all_the_room() -> None:
    targets = [
        target(n, deployment="hole", interval_s=1.0, timeout_s=60.0, connect_timeout_s=60.0)
        for n in range(200)
    ]
    prober = VirtualProber(targets, max_in_flight=100, behaviour=holes)
    prober.run(5)
    assert prober.sweep.in_flight == 100
    assert prober.scheduler.waiting == 100


def test_a_share_of_1_reserves_nothing() -> None:
    targets = [
        target(n, deployment=f"hole-{n % 2}", interval_s=1.0, timeout_s=60.0, connect_timeout_s=60)
        for n in range(200)
    ]
    scheduler = Scheduler(deployment_share=1.0)
    prober = VirtualProber(targets, scheduler=scheduler, max_in_flight=100, behaviour=holes)
    prober.run(5)
    assert prober.sweep.in_flight == 100


def test_the_wait_for_room_is_told_from_the_lag_of_the_loop() -> None:
    """R-53."""
    targets = [target(n, deployment="d", interval_s=1.0, timeout_s=0.5) for n in range(40)]
    prober = VirtualProber(targets, max_in_flight=10, behaviour=lambda _check, _now: None)
    prober.run(10)
    counters = prober.sweep.counters
    assert sum(counters.lag.counts) == sum(counters.slot_wait.counts) == counters.started
    assert counters.lag.total / counters.started < 0.011
    assert counters.slot_wait.total / counters.started > 0.2


def test_a_deployment_that_ends_while_it_waits_leaves_nothing_behind() -> None:
    """R-67."""
    targets = [
        target(n, deployment="hole", interval_s=1.0, timeout_s=60.0, connect_timeout_s=60.0)
        for n in range(50)
    ]
    prober = VirtualProber(targets, max_in_flight=5, behaviour=holes)
    prober.run(3)
    prober.sweep.replace(0, [], now=prober.now)
    prober.run(1)
    assert (prober.sweep.in_flight, prober.scheduler.waiting, len(prober.scheduler)) == (0, 0, 0)
    assert prober.sweep.counters.deployments == {}
