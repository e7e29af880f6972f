"""How long connections are kept, as pure sums."""

import doctest
from collections import Counter
from types import ModuleType
from uuid import UUID

import pytest

from probe.http import dial, keep
from probe.http.keep import AGE_JITTER, TRY_AGAIN_AFTER, Keep, KeepRule

RULE = KeepRule(connection_age_s=300.0, fresh_every=100)
IDS = [str(UUID(int=n * 0x9E3779B97F4A7C15, version=4)) for n in range(2000)]


def test_connection_may_carry_as_many_probes_as_the_rule_says() -> None:
    kept = Keep(IDS[7])
    first = kept.probes(RULE, interval_s=1.0)
    assert 1 <= first <= 100
    assert [kept.probes(RULE, interval_s=1.0) for _ in range(3)] == [100, 100, 100]


def test_every_probe_is_fresh_where_the_rule_says_so() -> None:
    kept = Keep(IDS[7])
    assert {kept.probes(KeepRule(fresh_every=1), interval_s=1.0) for _ in range(5)} == {1}


def test_first_counts_of_a_fleet_are_spread_evenly() -> None:
    counts = [Keep(replica_id).probes(RULE, interval_s=1.0) for replica_id in IDS]
    in_each_tenth = [sum(low < count <= low + 10 for count in counts) for low in range(0, 100, 10)]
    assert sum(in_each_tenth) == len(IDS)
    assert max(in_each_tenth) < 1.3 * len(IDS) / 10


def test_no_connection_grows_older_than_the_rule_says_and_not_all_end_together() -> None:
    def lives_s(replica_id: str) -> float:
        kept = Keep(replica_id)
        kept.probes(RULE, interval_s=10.0)  # the first, which is staggered over all of the age
        return 10.0 * kept.probes(RULE, interval_s=10.0)

    lives = Counter(map(lives_s, IDS))
    assert all(300 * (1 - AGE_JITTER) - 10 <= age_s <= 300 for age_s in lives)
    assert max(lives.values()) < 3 * len(IDS) / 8


def test_an_interval_beyond_the_age_takes_a_connection_each() -> None:
    assert {Keep(IDS[3]).probes(RULE, interval_s=1000.0) for _ in range(3)} == {1}


def test_replica_that_closed_early_is_tried_again_rarely() -> None:
    kept = Keep(IDS[0])
    kept.probes(RULE, interval_s=1.0)
    kept.closed_early()
    assert [kept.probes(RULE, interval_s=1.0) for _ in range(TRY_AGAIN_AFTER)] == [
        1
    ] * TRY_AGAIN_AFTER
    assert kept.probes(RULE, interval_s=1.0) == 100
    kept.closed_early()
    assert kept.probes(RULE, interval_s=1.0) == 1


@pytest.mark.parametrize("replica_id", IDS[:50])
def test_connection_always_carries_at_least_one_probe(replica_id: str) -> None:
    assert Keep(replica_id).probes(KeepRule(fresh_every=2), interval_s=1.0) in {1, 2}


@pytest.mark.parametrize("module", [keep, dial])
def test_examples_in_the_docstrings_hold(module: ModuleType) -> None:
    result = doctest.testmod(module)
    assert result.attempted
    assert not result.failed
