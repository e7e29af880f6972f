"""HOLD on record, and the operator's force: both outlive the leader that saw them."""

import pytest
from sqlalchemy import func, insert, select, update

from controller.db.asker import RolloutVerb
from controller.db.repository import Repository
from controller.db.session import Database
from controller.db.tables import audit, holds, rollouts
from controller.errors import InvalidInput, NotFound
from controller.model import Deployment, DeploymentId
from controller.reconcile.doubts import RecordHold
from controller.route.guard import HoldCause
from controller.service import FORCE_MAX_S, Service
from tests.fakes.database import rows
from tests.fakes.reconcile import ALWAYS, a_world

HELD = a_world(hold=[HoldCause.COVERAGE])
CLEAR = a_world()


async def test_a_hold_is_one_row_with_its_beginning_and_its_end(
    database: Database, repository: Repository, deployment: Deployment, epoch: int
) -> None:
    """S15"""
    assert (await repository.observe()).holds == ()
    await repository.record_holds({None: "coverage"}, epoch=epoch)
    (lasting,) = (await repository.observe()).holds
    assert (lasting.deployment_id, lasting.to_ms) == (None, None)
    await repository.record_holds({deployment.id: "deployment_breaker"}, epoch=epoch)
    fleet, own = sorted((await repository.observe()).holds, key=lambda each: each.to_ms is None)
    assert fleet.to_ms is not None
    assert fleet.from_ms == lasting.from_ms <= fleet.to_ms
    assert (own.deployment_id, own.to_ms) == (deployment.id, None)
    assert await rows(database, select(holds.c.causes).order_by(holds.c.id)) == [
        ("coverage",),
        ("deployment_breaker",),
    ]


async def test_while_nothing_changes_nothing_is_written(
    database: Database, repository: Repository, epoch: int
) -> None:
    """I10"""
    handler = RecordHold(repository, ALWAYS)
    counts = [await handler.commit(world, epoch=epoch) for world in (CLEAR, CLEAR, HELD, HELD)]
    assert counts == [0, 0, 1, 0]
    assert await rows(database, select(func.count()).select_from(holds)) == [(1,)]


async def test_the_next_leader_ends_what_the_last_one_began(
    repository: Repository, deployment: Deployment, epoch: int
) -> None:
    """S15: and the time without any leader counts as held."""
    del deployment
    await RecordHold(repository, ALWAYS).commit(HELD, epoch=epoch)
    successor = RecordHold(repository, ALWAYS)
    assert await successor.commit(HELD, epoch=epoch) == 0
    assert await successor.commit(CLEAR, epoch=epoch) == 1
    (span,) = (await repository.observe()).holds
    assert span.to_ms is not None


async def test_without_a_clock_to_stop_no_hold_is_read(repository: Repository, epoch: int) -> None:
    await repository.record_holds({None: "coverage"}, epoch=epoch)
    assert (await repository.observe()).holds == ()


class TestForce:
    async def test_it_lasts_for_so_long_and_is_in_the_audit_log(
        self, database: Database, repository: Repository, service: Service, deployment: Deployment
    ) -> None:
        """S21"""
        forced = await service.force("demo", for_s=600, actor="ada", reason="rack 3 burnt")
        snapshot = await repository.observe()
        seen = snapshot.deployments[DeploymentId(deployment.id)]
        assert seen.forced_until_ms == forced.forced_until_ms
        assert seen.forced(snapshot.now_ms)
        assert not seen.forced(snapshot.now_ms + 601_000)
        told = await rows(
            database,
            select(audit.c.verb, audit.c.actor, audit.c.reason).where(audit.c.verb == "force"),
        )
        assert told == [("force", "ada", "rack 3 burnt")]
        (entry, *_) = await service.history("demo")
        assert entry.message == "ada forced evictions for 600 s: rack 3 burnt"

    async def test_zero_ends_it(self, service: Service, deployment: Deployment) -> None:
        del deployment
        await service.force("demo", for_s=600, reason="x")
        assert (await service.force("demo", for_s=0, reason="x")).forced_until_ms is None

    @pytest.mark.parametrize(
        ("for_s", "reason"), [(-1, "x"), (FORCE_MAX_S + 1, "x"), (60, ""), (60, "  ")]
    )
    async def test_it_is_bounded_and_has_a_reason(
        self, service: Service, deployment: Deployment, for_s: float, reason: str
    ) -> None:
        del deployment
        with pytest.raises(InvalidInput):
            await service.force("demo", for_s=for_s, reason=reason)

    async def test_of_nobody_is_refused(self, service: Service) -> None:
        with pytest.raises(NotFound):
            await service.force("nobody", for_s=60, reason="x")


async def test_hold_inside_a_pause_moves_the_deadline_no_further(
    database: Database, service: Service, deployment: Deployment, epoch: int
) -> None:
    """S15: it is taken from the deadline where that is read."""
    before = deployment.rollout
    assert before is not None
    await service.steer(deployment.name, RolloutVerb.PAUSE, actor="ada")
    async with database.write(epoch=None) as write:
        of, ago_ms = rollouts.c, write.now_ms - 60_000
        began = {"started_at_ms": of.started_at_ms - 120_000, "paused_at_ms": ago_ms}
        await write.connection.execute(update(rollouts).values(began))
        span = {"from_ms": ago_ms + 10_000, "to_ms": ago_ms + 50_000, "epoch": epoch}
        await write.connection.execute(insert(holds), [span | {"causes": "coverage"}])
    resumed = await service.steer(deployment.name, RolloutVerb.RESUME, actor="ada")
    after = resumed.deployment.rollout
    assert after is not None
    assert 20_000 <= after.deadline_at_ms - before.deadline_at_ms < 60_000
