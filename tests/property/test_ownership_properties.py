"""Whatever the members are: one owner each, equal shares, and little moves."""

from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probe.errors import SettingsError
from probe.ownership import Shard, owned, share_out
from probe.wire import PARTITIONS

EVERY = frozenset(range(PARTITIONS))
names = st.text("abcdefghij0123456789-.", min_size=1, max_size=20)
fleets = st.sets(names, min_size=1, max_size=80)


@given(fleets, st.randoms())
def test_equal_views_give_every_partition_exactly_one_owner(
    members: set[str], chance: Random
) -> None:
    """R-62: whatever the order the members were read in."""
    shuffled = sorted(members)
    chance.shuffle(shuffled)
    shares = [owned(member, shuffled) for member in members]
    assert sum(map(len, shares)) == PARTITIONS
    assert frozenset().union(*shares) == EVERY
    assert share_out([*shuffled, shuffled[0]]) == share_out(members)


@given(fleets)
def test_no_member_has_more_than_its_share(members: set[str]) -> None:
    fair = -(-PARTITIONS // len(members))
    assert max(len(owned(member, members)) for member in members) <= fair


@given(st.sets(names, min_size=2, max_size=80))
def test_every_partition_has_an_heir_that_is_not_its_owner(members: set[str]) -> None:
    shares = share_out(members)
    assert shares.heirs.keys() == EVERY
    assert all(shares.heirs[partition] != owner for partition, owner in shares.owners.items())
    assert frozenset().union(*(shares.heirloom(member) for member in members)) == EVERY


def test_who_is_alone_owns_everything_and_leaves_it_to_nobody() -> None:
    assert owned("a", ["a"]) == EVERY
    assert share_out(["a"]).heirs == {}
    assert owned("a", []) == frozenset()


@given(st.lists(names, min_size=2, max_size=16, unique=True))
def test_a_join_or_a_departure_moves_its_own_share_and_at_most_a_third_of_the_rest(
    members: list[str],
) -> None:
    """What else moves comes of keeping the shares equal."""
    with_it, without = share_out(members).owners, share_out(members[1:]).owners
    others = [partition for partition in EVERY if with_it[partition] != members[0]]
    moved = sum(with_it[partition] != without[partition] for partition in others)
    assert moved <= max(1, PARTITIONS // 3)


def test_on_average_little_more_moves_than_must() -> None:
    for count in (2, 4, 8):
        moved = must = 0
        for seed in range(100):
            members = [f"prober-{seed}-{number}" for number in range(count)]
            before, after = share_out(members).owners, share_out(members[1:]).owners
            moved += sum(before[partition] != after[partition] for partition in EVERY)
            must += len(owned(members[0], members))
        assert moved <= 1.75 * must


@given(st.integers(1, PARTITIONS), st.data())
def test_shards_are_disjoint_and_cover_everything(count: int, data: st.DataObject) -> None:
    shares = [Shard(index, count).partitions() for index in range(1, count + 1)]
    assert sum(map(len, shares)) == PARTITIONS
    assert frozenset().union(*shares) == EVERY
    ways = data.draw(st.integers(1, PARTITIONS // count))
    parts = [part.partitions() for part in Shard(1, count).split(ways)]
    assert frozenset().union(*parts) == shares[0]
    assert all(not one & other for one, other in pairwise(parts))
    assert owned("anybody", {"somebody else"}, shard=Shard(1, count)) == shares[0]


@pytest.mark.parametrize("text", ["", "0/2", "3/2", "1/65", "1", "a/b", "1/2\n", "-1/2", "1/0"])
def test_what_is_no_shard_is_refused_by_name(text: str) -> None:
    with pytest.raises(SettingsError) as refused:
        Shard.parse(text)
    assert repr(text) in str(refused.value)


def test_a_shard_reads_back_as_it_is_written() -> None:
    assert Shard.parse(str(Shard(3, 16))) == Shard(3, 16)
    with pytest.raises(SettingsError, match="fewer workers"):
        Shard(1, 32).split(3)
