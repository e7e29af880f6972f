"""What the rules are worth: the same disasters under a naive controller, and under this one.

A thousand routes, four probers, virtual time, the real observer, classification and eviction.
Run with -s to see the table.
"""

from collections.abc import Callable
from typing import Final

import pytest

from controller.model import RouteId
from controller.route.guard import second_source
from probe.wire import ReplicaId
from tests.fakes.policy_world import START_S, Farm, World, prober_of, thousand

CALM_S: Final = 50.0
"""Everything is in order for so long first."""
TROUBLE_S: Final = START_S + CALM_S
TEN_MINUTES: Final = 600.0
DEAD: Final = thousand()[5].id


def nothing_else(_route: RouteId, _prober: str) -> float | None:
    return None


def cut_off(route: RouteId, prober: str) -> float | None:
    """p-1 reaches nobody any more, and says so of everybody."""
    del route
    return TROUBLE_S if prober == "p-1" else None


def one_dies(route: RouteId, prober: str) -> float | None:
    del prober
    return TROUBLE_S if route == DEAD else None


async def under_the_rules(
    farm: Farm, *, for_s: float = CALM_S + TEN_MINUTES + 60.0, look_s: float = 10.0
) -> World:
    world = World(farm, look_s=look_s)
    await world.run(for_s)
    return world


def naive(fails: Callable[[RouteId, str], float | None], *, silent: bool) -> int:
    """Count whom a controller kills that believes what it finds, and what it does not find."""
    routes = thousand()
    if silent:
        return len(routes)
    return sum(fails(route.id, prober_of(ReplicaId(route.id))) is not None for route in routes)


async def test_bus_away_for_ten_minutes_evicts_nobody() -> None:
    """R-20e, I11"""
    world = await under_the_rules(Farm(bus_away=(TROUBLE_S, TROUBLE_S + TEN_MINUTES)))
    told("bus away 10 min", naive(nothing_else, silent=True), len(world.evicted_at))
    assert world.evicted_at == {}
    assert all(route.ready for route in world.routes)


async def test_all_probers_away_for_ten_minutes_evict_nobody() -> None:
    """R-20e, I11"""
    world = await under_the_rules(Farm(probers_away=(TROUBLE_S, TROUBLE_S + TEN_MINUTES)))
    told("probers away 10 min", naive(nothing_else, silent=True), len(world.evicted_at))
    assert world.evicted_at == {}
    assert all(route.ready for route in world.routes)


async def test_one_of_four_probers_cut_off_evicts_nobody() -> None:
    """R-20e, S11: its word alone takes nobody out, and others' word voids it."""
    world = await under_the_rules(Farm(fails_since=cut_off))
    told("one of four cut off", naive(cut_off, silent=False), len(world.evicted_at))
    assert world.evicted_at == {}


def quarter_out(route: RouteId, _prober: str) -> float | None:
    """A quarter of the fleet is down indeed, and everybody finds the same."""
    return TROUBLE_S if prober_of(ReplicaId(route)) == "p-1" else None


async def test_an_outage_that_one_prober_alone_goes_on_seeing_evicts_nobody() -> None:
    """S11: who confirmed it during the outage has not looked since."""
    world = World(Farm(fails_since=quarter_out))
    await world.run(CALM_S + 90.0)
    world.farm.fails_since = cut_off
    await world.run(TEN_MINUTES)
    killed = naive(cut_off, silent=False)
    told("outage ends for all but one", killed, len(world.evicted_at))
    assert world.evicted_at == {}


async def test_without_second_witnesses_breakers_and_budgets_still_bound_the_harm(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """R-20e: 1 % a minute, begun again with one after HOLD."""
    monkeypatch.setattr(second_source, "_confirmation", lambda *_args, **_given: "anybody")
    monkeypatch.setattr(second_source, "to_ask", lambda *_args, **_given: {})
    world = await under_the_rules(Farm(fails_since=cut_off))
    told("  without second witness", naive(cut_off, silent=False), len(world.evicted_at))
    assert len(world.evicted_at) <= 10 * TEN_MINUTES / 60


async def test_one_true_death_is_evicted_within_half_a_minute() -> None:
    """R-20e, S11: confirmed by another prober, and only this one goes."""
    world = await under_the_rules(Farm(fails_since=one_dies), for_s=CALM_S + 60.0, look_s=5.0)
    assert list(world.evicted_at) == [DEAD]
    after_s = world.evicted_at[DEAD] - TROUBLE_S
    told("one true death", 1, 1, f"after {after_s:.0f} s")
    assert after_s <= 30.0


def told(what: str, naive_kills: int, rules_kill: int, more: str = "") -> None:
    """Print one row of the table."""
    print(f"\n| {what:<26} | {naive_kills:>5} | {rules_kill:>5} | {more}", end="")  # noqa: T201
