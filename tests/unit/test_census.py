"""Ages and cadences, found a few checks at a time."""

from itertools import pairwise

import pytest

from probe.schedule.census import CHECKS_PER_LOOK, LOOKS_PER_ROUND_MIN, Census
from probe.schedule.scheduler import Scheduler
from probe.wire import PARTITIONS, ReplicaProbeTarget, partition_of
from tests.fakes.entries import target


class Rig:
    def __init__(self) -> None:
        self.now = 1000.0
        self.scheduler = Scheduler()
        self.census = Census(self.scheduler)

    def watch(self, *targets: ReplicaProbeTarget) -> None:
        groups: dict[int, list[ReplicaProbeTarget]] = {p: [] for p in range(PARTITIONS)}
        for each in targets:
            groups[partition_of(each.replica_id)].append(each)
        for partition, group in groups.items():
            self.scheduler.replace(partition, group, now=self.now)

    def look(self, times: int) -> None:
        for _ in range(times):
            self.census.look(self.now)

    def all_around(self) -> None:
        """Look often enough for a whole round, wherever the last one stands."""
        self.look(2 * max(LOOKS_PER_ROUND_MIN, len(self.scheduler) // CHECKS_PER_LOOK + 2))


@pytest.fixture
def rig() -> Rig:
    return Rig()


def targets(count: int) -> list[ReplicaProbeTarget]:
    return [target(n, deployment=f"d{n % 5}", interval_s=10.0, timeout_s=2.0) for n in range(count)]


@pytest.mark.parametrize("count", [1, CHECKS_PER_LOOK, 17 * CHECKS_PER_LOOK + 3])
def test_a_round_sees_every_check_once(rig: Rig, count: int) -> None:
    rig.watch(*targets(count))
    rig.now += 60.0
    rig.all_around()
    found = rig.census.last
    assert found.cadences == {(10.0, 2.0)}
    assert sum(ages.overdue for ages in found.ages.values()) == count
    assert set(found.ages) == {each.deployment for each in targets(count)}


def test_a_look_is_bounded_whatever_the_fleet(rig: Rig) -> None:
    rig.watch(*targets(1000))
    rig.now += 60.0
    seen: list[int] = []
    for _ in range(LOOKS_PER_ROUND_MIN + 40):
        rig.census.look(rig.now)
        seen.append(sum(ages.overdue for ages in rig.census._next.ages.values()))
    assert max(b - a for a, b in pairwise(seen)) == CHECKS_PER_LOOK


def test_a_target_nobody_visits_is_overdue_after_two_intervals_and_a_timeout(rig: Rig) -> None:
    """R-65."""
    rig.watch(target(1, deployment="d", interval_s=10.0, timeout_s=2.0))
    (check,) = rig.scheduler
    check.ended_at = rig.now
    for age_s, overdue in ((21.9, 0), (22.1, 1)):
        rig.now = check.ended_at + age_s
        rig.all_around()
        ages = rig.census.last.ages["d"]
        assert ages.oldest_s == pytest.approx(age_s)
        assert ages.overdue == overdue


def test_a_stretched_interval_is_not_overdue(rig: Rig) -> None:
    rig.watch(target(1, deployment="d", interval_s=10.0, timeout_s=2.0))
    (check,) = rig.scheduler
    check.ended_at, rig.now = rig.now, rig.now + 30
    for _ in range(2 * LOOKS_PER_ROUND_MIN):
        rig.census.look(rig.now, stretch=2.0)
    assert rig.census.last.ages["d"].overdue == 0


def test_what_leaves_between_two_looks_is_not_counted(rig: Rig) -> None:
    """R-67."""
    rig.watch(*targets(4 * CHECKS_PER_LOOK))
    rig.look(LOOKS_PER_ROUND_MIN + 1)
    rig.watch(target(1, deployment="d1", interval_s=10.0))
    rig.all_around()
    assert set(rig.census.last.ages) == {"d1"}
    assert rig.census.last.cadences == {(10.0, 15.0)}
