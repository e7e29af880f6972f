"""When the coordinator runs whom: periods, marks, pauses, and what an outage owes."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import structlog.testing

from controller.db.repository import Repository
from controller.errors import DatabaseUnreachable
from controller.model import Deployment, Health, Route
from controller.reconcile.handler import FleetHandler, Mark, Plan, Schedule, World
from tests.fakes.database import running_routes
from tests.fakes.reconcile import EachRoute, Ticks, degrade, nothing


@pytest.fixture
async def routes(repository: Repository, deployment: Deployment, epoch: int) -> tuple[Route, ...]:
    return await running_routes(repository, deployment, 4, epoch=epoch)


async def test_nothing_due_reads_nothing(
    ticks: Ticks, routes: tuple[Route, ...], epoch: int
) -> None:
    """R-04"""
    handler = EachRoute(nothing)
    ticks.of(handler)
    await ticks.runner.tick(epoch=epoch)
    await ticks.runner.tick(epoch=epoch)
    assert handler.runs == 1
    assert routes
    ticks.now_s += handler.schedule.period_s
    await ticks.runner.tick(epoch=epoch)
    assert handler.runs == 2


async def test_a_mark_wakes_its_consumers_after_their_shortest_pause(
    ticks: Ticks, epoch: int
) -> None:
    """R-49"""
    schedule = Schedule(period_s=60.0, on_mark_s=5.0, consumes=frozenset({Mark.HEALTH}))
    woken = EachRoute(nothing, name="woken", schedule=schedule)
    deaf = EachRoute(nothing, name="deaf", schedule=replace(schedule, consumes=frozenset()))
    ticks.of(woken, deaf)
    await ticks.runner.tick(epoch=epoch)
    ticks.runner.mark(Mark.HEALTH)
    assert ticks.runner.next_at() == ticks.now_s + 5.0
    await ticks.runner.tick(epoch=epoch)
    assert (woken.runs, deaf.runs) == (1, 1)
    ticks.now_s += 5.0
    await ticks.runner.tick(epoch=epoch)
    assert (woken.runs, deaf.runs) == (2, 1)
    assert ticks.runner.next_at() == ticks.now_s + 55.0


async def test_a_change_marks_for_others_and_no_change_marks_for_nobody(
    ticks: Ticks, routes: tuple[Route, ...], epoch: int
) -> None:
    """R-49"""
    first = EachRoute(
        degrade,
        name="first",
        schedule=Schedule(period_s=1.0, produces=frozenset({Mark.READINESS})),
    )
    second = EachRoute(
        nothing,
        name="second",
        schedule=Schedule(period_s=60.0, on_mark_s=0.0, consumes=frozenset({Mark.READINESS})),
    )
    ticks.of(second, first)
    await ticks.runner.tick(epoch=epoch)
    assert second.runs == 1
    await ticks.runner.tick(epoch=epoch)
    assert second.runs == 2
    assert routes
    first.plan = nothing
    ticks.now_s += 1.0
    await ticks.runner.tick(epoch=epoch)
    await ticks.runner.tick(epoch=epoch)
    assert second.runs == 2


async def test_a_mark_set_while_the_world_is_read_is_not_lost(ticks: Ticks, epoch: int) -> None:
    """R-49: it may be of something that this look does not show."""
    schedule = Schedule(period_s=60.0, on_mark_s=5.0, consumes=frozenset({Mark.HEALTH}))
    woken = EachRoute(nothing, schedule=schedule)
    ticks.of(woken)
    ticks.eyes.while_looking = lambda: ticks.runner.mark(Mark.HEALTH)
    await ticks.runner.tick(epoch=epoch)
    assert ticks.runner.next_at() == ticks.now_s + 5.0
    ticks.eyes.while_looking = None
    ticks.now_s += 5.0
    await ticks.runner.tick(epoch=epoch)
    assert woken.runs == 2
    assert ticks.runner.next_at() == ticks.now_s + 60.0


async def test_a_tick_the_database_ended_is_made_up_for_by_everybody(
    ticks: Ticks, routes: tuple[Route, ...], epoch: int
) -> None:
    """I11: whatever was lost with it, nobody sits out a period for it."""
    first = EachRoute(nothing, name="first")
    cut = EachRoute(nothing, name="cut")
    ticks.of(first, cut)

    def away(given: Sequence[Route]) -> Plan:
        raise DatabaseUnreachable(f"away, with {len(given)} routes to decide over")

    cut.plan = away
    with pytest.raises(DatabaseUnreachable):
        await ticks.runner.tick(epoch=epoch)
    assert routes
    cut.plan = nothing
    await ticks.runner.tick(epoch=epoch)
    assert (first.runs, cut.runs) == (2, 2)
    assert ticks.failures("cut") is None


async def test_a_later_handler_sees_what_an_earlier_one_wrote(
    ticks: Ticks, routes: tuple[Route, ...], epoch: int
) -> None:
    seen: list[set[Health]] = []

    def look(given: Sequence[Route]) -> Plan:
        seen.append({route.health for route in given})
        return Plan()

    ticks.of(EachRoute(degrade, name="first"), EachRoute(look, name="second"))
    await ticks.runner.tick(epoch=epoch)
    assert seen == [{Health.DEGRADED}]
    assert routes


async def test_whose_turn_is_still_to_come_is_woken_in_the_same_tick_and_once(
    ticks: Ticks, routes: tuple[Route, ...], epoch: int
) -> None:
    """R-49: what becomes ready is published at once."""
    first = EachRoute(
        nothing,
        name="first",
        schedule=Schedule(period_s=1.0, produces=frozenset({Mark.READINESS})),
    )
    second = EachRoute(
        nothing,
        name="second",
        schedule=Schedule(period_s=60.0, on_mark_s=0.5, consumes=frozenset({Mark.READINESS})),
    )
    ticks.of(first, second)
    await ticks.runner.tick(epoch=epoch)
    assert second.runs == 1
    first.plan = degrade
    ticks.now_s += 1.0
    await ticks.runner.tick(epoch=epoch)
    assert second.runs == 2
    assert ticks.runner.next_at() == ticks.now_s + 1.0, "no mark is left"
    assert routes


class Beside(FleetHandler):
    """Writes what is neither a route nor a deployment."""

    name = "beside"

    def __init__(self, schedule: Schedule) -> None:
        super().__init__(schedule)
        self.epochs: list[int] = []
        self.fails = False

    async def commit(self, world: World, *, epoch: int) -> int:
        if self.fails:
            raise ZeroDivisionError(f"a bug over {len(world.snapshot.routes)} routes")
        self.epochs.append(epoch)
        return 1


async def test_a_handler_of_the_fleet_writes_under_the_epoch_and_wakes_whom_it_concerns(
    ticks: Ticks, epoch: int
) -> None:
    """R-49: and nobody reads the world again for what is not in it."""
    beside = Beside(Schedule(period_s=1.0, produces=frozenset({Mark.READINESS})))
    woken = EachRoute(
        nothing,
        name="woken",
        schedule=Schedule(period_s=60.0, on_mark_s=0.0, consumes=frozenset({Mark.READINESS})),
    )
    looks = 0

    def look() -> None:
        nonlocal looks
        looks += 1

    ticks.of(beside, woken)
    ticks.eyes.while_looking = look
    assert await ticks.runner.tick(epoch=epoch) == 1
    assert (beside.epochs, woken.runs, looks) == ([epoch], 1, 1)
    assert ticks.runner.next_at() == ticks.now_s + 1.0, "no mark is left"


async def test_a_handler_of_the_fleet_that_breaks_does_not_end_the_tick(
    ticks: Ticks, epoch: int
) -> None:
    """R-15"""
    beside, later = Beside(Schedule(period_s=1.0)), EachRoute(nothing, name="later")
    beside.fails = True
    ticks.of(beside, later)
    with structlog.testing.capture_logs() as logs:
        assert await ticks.runner.tick(epoch=epoch) == 0
    assert [entry["event"] for entry in logs] == ["handler_failed"]
    assert (ticks.failures("beside"), later.runs) == (1, 1)
