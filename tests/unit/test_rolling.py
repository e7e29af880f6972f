"""The arithmetic of a rolling update."""

from dataclasses import replace

import pytest

from controller.model import Bound, Health, Policy, Route, RouteStatus, Stage
from controller.rollout.counting import (
    Bounds,
    bounds_back,
    resolve,
    steps,
    tally,
    termination_order,
)
from controller.rollout.rolling import bounds_of
from tests.fakes.nouns import NEW, NOW_MS, a_route, fleet, warming


def new(number: int, **given: object) -> Route:
    return a_route(number, revision_id=NEW.id, **given)


def steps_for(routes: list[Route], bounds: Bounds, *, min_ready_s: float = 0.0) -> tuple[int, int]:
    """Return how many are created and drained."""
    found = steps(tally(routes, NEW.id, now_ms=NOW_MS, min_ready_s=min_ready_s), bounds)
    return found.create, len(found.drain)


@pytest.mark.parametrize(
    ("bound", "target", "up", "count"),
    [
        ("50%", 3, True, 2),
        ("50%", 3, False, 1),
        ("1%", 1, True, 1),
        ("99%", 1, False, 0),
        ("100%", 7, False, 7),
        ("33%", 100, True, 33),
        ("0%", 100, True, 0),
        (0, 100, True, 0),
        (7, 3, False, 7),
    ],
)
def test_surge_rounds_up_and_unavailable_down(
    bound: Bound, target: int, *, up: bool, count: int
) -> None:
    """R-31."""
    assert resolve(bound, target, up=up) == count


@pytest.mark.parametrize("surge", [0, "0%"])
@pytest.mark.parametrize("unavailable", [0, "0%", "30%"])
def test_bounds_of_nothing_at_all_become_a_surge_of_one(surge: Bound, unavailable: Bound) -> None:
    """R-31: 30 % of three rounds down to 0, and a rollout could never move."""
    bounds = bounds_of(Policy(surge=surge, unavailable=unavailable), 3)
    assert (bounds.surge, bounds.unavailable) == (1, 0)


def test_the_default_policy_is_half_more_and_none_less() -> None:
    assert bounds_of(Policy(), 5) == Bounds(target=5, surge=3, unavailable=0)


def test_a_floor_is_never_negative() -> None:
    assert Bounds(target=2, surge=0, unavailable=5).min_avail == 0


def test_a_rollback_with_room_gives_no_ready_replica_up_before_another_is_ready() -> None:
    assert bounds_back(Bounds(target=5, surge=2, unavailable=3)).min_avail == 5


def test_a_rollback_without_room_keeps_its_unavailable_or_it_could_never_move() -> None:
    assert bounds_back(Bounds(target=5, surge=0, unavailable=3)).min_avail == 2


def test_replicas_are_given_up_in_the_order_in_which_they_serve_least() -> None:
    healthy, older = a_route(5), a_route(4)
    unchecked = a_route(3, health=Health.NOT_CHECKED, health_check=None)
    degraded = a_route(2, health=Health.DEGRADED)
    unhealthy = a_route(1, health=Health.UNHEALTHY)
    starting = warming(9)
    shuffled = [healthy, degraded, starting, unchecked, older, unhealthy]
    assert termination_order(shuffled) == (
        starting,
        unhealthy,
        degraded,
        unchecked,
        older,
        healthy,
    )


BOUNDS = Bounds(target=3, surge=1, unavailable=0)


@pytest.mark.parametrize(
    ("routes", "create", "drain"),
    [
        pytest.param(fleet(3), 1, 0, id="the surge is created before anything drains"),
        pytest.param([*fleet(3), new(10)], 0, 1, id="one ready new one frees one old"),
        pytest.param([*fleet(2), new(10)], 1, 0, id="what drained makes room for the next"),
        pytest.param(
            [*fleet(3), warming(10, revision_id=NEW.id)], 0, 0, id="one that loads frees none"
        ),
        pytest.param([*fleet(3, bad=1)], 1, 1, id="a dead old one drains outside the budget"),
        pytest.param([*fleet(3, bad=3)], 1, 3, id="all dead: all drain, none of them served"),
        pytest.param(
            [*fleet(2), new(10, health=Health.DEGRADED), new(11, health=Health.NOT_CHECKED)],
            0,
            0,
            id="degraded and unchecked new ones use up the surge",
        ),
        pytest.param(
            [*fleet(2), new(10, health=Health.NOT_CHECKED, health_check=None), new(11)],
            0,
            1,
            id="new ones without a health check count as ready",
        ),
        pytest.param([*fleet(1), new(10), new(11), new(12)], 0, 1, id="the last old one drains"),
        pytest.param([new(n) for n in range(5)], 0, 0, id="too many new ones stay for scaling"),
        pytest.param([], 3, 0, id="a first rollout creates all at once"),
        pytest.param(fleet(9), 0, 6, id="scaled in meanwhile: what is too many drains first"),
    ],
)
def test_one_cycle_stays_within_its_bounds(routes: list[Route], create: int, drain: int) -> None:
    """R-32: only ready replicas count as available."""
    assert steps_for(routes, BOUNDS) == (create, drain)


def test_the_last_ready_old_replica_stays_until_a_new_one_is_ready() -> None:
    """R-32."""
    bounds = Bounds(target=2, surge=0, unavailable=1)
    alone = [a_route(1), warming(10, revision_id=NEW.id)]
    assert steps_for(alone, bounds) == (0, 0)
    assert steps_for([a_route(1), new(10)], bounds) == (0, 1)


def test_the_last_one_goes_early_where_all_may_be_unavailable() -> None:
    """R-32: asked for explicitly."""
    assert steps_for([a_route(1)], Bounds(target=1, surge=0, unavailable=1)) == (0, 1)


@pytest.mark.parametrize(("ready_for_s", "drain"), [(29.9, 0), (30.0, 1)])
def test_a_new_replica_counts_once_it_was_ready_long_enough(ready_for_s: float, drain: int) -> None:
    young = new(10, ready_since_ms=NOW_MS - int(ready_for_s * 1000))
    assert steps_for([*fleet(3), young], BOUNDS, min_ready_s=30.0) == (0, drain)


def test_routes_of_any_other_revision_are_old_and_leaving_ones_are_nobodys() -> None:
    leaving = a_route(4, status=RouteStatus.TERMINATING, stage=Stage.DRAINING)
    stray = a_route(5, revision_id="revision-0")
    counted = tally([leaving, stray, new(10)], NEW.id, now_ms=NOW_MS, min_ready_s=0.0)
    assert counted.others == (stray,)
    assert (counted.ready_wanted, counted.ready_others, counted.ready) == (1, 1, 2)


@pytest.mark.parametrize(
    ("routes", "complete"),
    [
        ([new(1), new(2), new(3)], True),
        ([new(1), new(2)], False),
        ([new(1), new(2), new(3), a_route(4)], False),
        ([new(1), new(2), new(3), warming(4, revision_id=NEW.id)], False),
        ([new(1), new(2), replace(new(3), health=Health.UNHEALTHY)], False),
    ],
    ids=["all ready", "one missing", "an old one left", "one still loads", "one ill"],
)
def test_complete_is_all_new_ready_and_nothing_else_left(
    routes: list[Route], *, complete: bool
) -> None:
    counted = tally(routes, NEW.id, now_ms=NOW_MS, min_ready_s=0.0)
    assert steps(counted, BOUNDS).complete is complete
