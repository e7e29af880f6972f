"""The whole system with real processes: it serves, it changes, and it survives its own parts."""

import pytest

from controller.model import Lifecycle, Outcome, Snapshot
from controller.provision.fleet.replica import Fault
from controller.up.stack import Stack
from tests.fakes.operator import all_ready, describe, operating

REPLICAS = 50


async def test_killed_replicas_are_replaced_and_the_others_stay(stack: Stack) -> None:
    async with operating(stack) as operator:
        await operator.apply("chat", REPLICAS)
        before = await operator.until(all_ready(REPLICAS), within_s=30)
        victims = [route.id for route in before.routes[:5]]
        await operator.fleet.inject(victims, Fault.KILL)

        def replaced(snapshot: Snapshot) -> bool:
            alive = {route.id for route in snapshot.routes if route.active}
            return not alive & set(victims) and all_ready(REPLICAS)(snapshot)

        after = await operator.until(replaced, within_s=30)
        kept = {route.id for route in before.routes} & {route.id for route in after.routes}
        assert len(kept - set(victims)) == REPLICAS - 5
        assert operator.violations() == 0


async def test_a_rolling_update_replaces_every_replica_above_its_floor(stack: Stack) -> None:
    async with operating(stack) as operator:
        await operator.apply("chat", 10)
        before = await operator.until(all_ready(10), within_s=30)
        await operator.apply("chat", 10, version=2)
        lowest = [10]

        def done(snapshot: Snapshot) -> bool:
            lowest.append(sum(route.ready for route in snapshot.routes))
            (deployment,) = snapshot.deployments.values()
            current = deployment.current
            return current is not None and current.number == 2 and all_ready(10)(snapshot)

        after = await operator.until(done, within_s=40)
        assert not {r.id for r in before.routes} & {r.id for r in after.routes if r.active}
        assert min(lowest) >= 10
        (newest, first) = await operator.service.list_rollouts("chat")
        assert [newest.outcome, first.outcome] == [Outcome.PROMOTED, Outcome.PROMOTED]
        assert operator.violations() == 0


async def test_a_revision_that_never_serves_rolls_back_and_the_old_one_stays(stack: Stack) -> None:
    """R-39 has no part here: there is a revision to go back to."""
    async with operating(stack) as operator:
        await operator.apply("chat", 4)
        before = await operator.until(all_ready(4), within_s=30)
        await operator.apply("chat", 4, version=2, refuse="no such image")

        def back(snapshot: Snapshot) -> bool:
            (deployment,) = snapshot.deployments.values()
            return deployment.lifecycle is Lifecycle.READY and all_ready(4)(snapshot)

        await operator.until(lambda s: not back(s), within_s=10)
        after = await operator.until(back, within_s=60)
        assert {r.id for r in before.routes} == {r.id for r in after.routes if r.active}
        (newest, _) = await operator.service.list_rollouts("chat")
        assert newest.outcome in (Outcome.FAILED, Outcome.ROLLED_BACK)


async def test_scaling_and_deleting_leave_exactly_what_was_asked_for(stack: Stack) -> None:
    async with operating(stack) as operator:
        await operator.apply("chat", 4)
        await operator.until(all_ready(4), within_s=30)
        await operator.service.scale("chat", 7)
        await operator.until(all_ready(7), within_s=20)
        await operator.service.scale("chat", 2)
        await operator.until(all_ready(2), within_s=20)
        await operator.service.delete("chat")
        gone = await operator.until(lambda s: not s.routes and not s.deployments, within_s=20)
        assert describe(gone).startswith("[]")


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_losing_the_prober_and_then_the_bus_evicts_nothing(stack: Stack) -> None:
    """R-05, R-20e: 60 s without a prober, then 20 s without a bus, and not one replica is lost."""
    async with operating(stack) as operator:
        await operator.apply("chat", REPLICAS)
        before = await operator.until(all_ready(REPLICAS), within_s=30)
        ids = {route.id for route in before.routes}

        async def nothing_lost(snapshot: Snapshot) -> None:
            assert {route.id for route in snapshot.routes if route.active} == ids
            assert all(route.ready for route in snapshot.routes)

        stack.take_away("prober")
        await operator.throughout(nothing_lost, for_s=60)
        stack.bring_back("prober")
        await operator.until(lambda _: _fresh(operator.sight.statuses, REPLICAS), within_s=20)

        stack.take_away("bus")
        await operator.throughout(nothing_lost, for_s=20)
        stack.bring_back("bus")
        await operator.until(lambda _: _fresh(operator.sight.statuses, REPLICAS), within_s=25)
        await operator.throughout(nothing_lost, for_s=5)
        assert operator.evictions() == 0
        assert operator.violations() == 0


def _fresh(statuses: object, replicas: int) -> bool:
    return isinstance(statuses, dict) and len(statuses) == replicas
