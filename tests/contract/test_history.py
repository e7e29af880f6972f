"""What is remembered: every change with both sides, and every wait, once."""

from random import Random

import pytest
from sqlalchemy import update

from controller.db.repository import Repository
from controller.db.session import Database
from controller.db.tables import history
from controller.model import (
    Deployment,
    Health,
)
from controller.service import Service
from tests.fakes.database import (
    change,
    running_routes,
    to_draining,
    waiting,
)


async def test_change_is_told_with_the_real_states_on_both_sides(
    repository: Repository, deployment: Deployment, epoch: int
) -> None:
    """R-20c, R-41"""
    (route,) = await running_routes(repository, deployment, 1, epoch=epoch)
    await repository.apply([to_draining(route)], epoch=epoch)
    told = [
        (entry.category, entry.from_state, entry.to_state)
        for entry in reversed(await repository.history_of(route.id))
    ]
    assert told == [
        ("create", "", "provisioning/pending"),
        (
            "check_warming_up",
            "provisioning/pending health:not_checked traffic:inactive",
            "running health:healthy traffic:active",
        ),
        (
            "evict",
            "running health:healthy traffic:active",
            "terminating/draining health:not_checked traffic:inactive",
        ),
    ]


async def test_entry_names_epoch_rollout_and_time(
    repository: Repository, deployment: Deployment, epoch: int
) -> None:
    """R-18"""
    (route,) = await running_routes(repository, deployment, 1, epoch=epoch)
    newest = (await repository.history_of(route.id))[0]
    assert deployment.rollout is not None
    assert (newest.epoch, newest.rollout_id) == (epoch, deployment.rollout.id)
    assert newest.created_at_ms == newest.updated_at_ms == route.entered_at_ms
    assert newest.phase == "provisioning/pending"


async def test_health_flap_is_never_merged_away(
    repository: Repository, deployment: Deployment, epoch: int
) -> None:
    """R-41"""
    await running_routes(repository, deployment, 1, epoch=epoch)
    for health in [Health.UNHEALTHY, Health.HEALTHY] * 3:
        (route,) = (await repository.observe()).routes
        flap = change(route, category="classify_health", health=health, message="flap")
        await repository.apply([flap], epoch=epoch)
    told = [
        entry.to_state
        for entry in await repository.history_of(route.id)
        if entry.category == "classify_health"
    ]
    assert told == ["health:healthy", "health:unhealthy"] * 3


async def test_note_without_any_change_is_written(
    repository: Repository, deployment: Deployment, epoch: int
) -> None:
    """R-19"""
    note = waiting(deployment)
    applied = await repository.apply([], [note], epoch=epoch)
    newest = (await repository.history_of(deployment.id))[0]
    assert applied.applied == 0
    assert (newest.category, newest.result, newest.attempts) == ("deploying", "skipped", 1)
    assert newest.phase == newest.from_state == newest.to_state == "deploying/provisioning"


async def test_repeated_note_counts_up_and_keeps_its_first_time(
    database: Database, repository: Repository, deployment: Deployment, epoch: int
) -> None:
    """R-19"""
    await repository.apply([], [waiting(deployment)], epoch=epoch)
    async with database.write(epoch=None) as write:
        await write.connection.execute(update(history).values(created_at_ms=1, updated_at_ms=1))
    for _ in range(3):
        await repository.apply([], [waiting(deployment)], epoch=epoch)
    newest, before, *_ = await repository.history_of(deployment.id)
    assert newest.attempts == 4
    assert newest.created_at_ms == 1
    assert newest.updated_at_ms > 1
    assert before.category == "activate"


@pytest.mark.parametrize(
    "other", [{"result": "failure"}, {"error_code": "DATABASE"}, {"category": "rolling_back"}]
)
async def test_another_note_in_between_starts_a_new_row_of_its_category(
    repository: Repository, deployment: Deployment, epoch: int, other: dict[str, str]
) -> None:
    """R-41: what alternates is not folded into one row."""
    first = waiting(deployment)
    different = waiting(deployment, **other)
    for note in (first, different, first):
        await repository.apply([], [note], epoch=epoch)
    told = await repository.history_of(deployment.id)
    waits = [entry.attempts for entry in told if entry.result != "success"]
    assert waits == ([1, 2] if "category" in other else [1, 1, 1])


async def test_a_recorded_note_tells_how_often_it_was_made_in_a_row(
    repository: Repository, deployment: Deployment, epoch: int
) -> None:
    """R-12: by its category alone, and until something else was noted there."""
    failure = waiting(deployment, result="failure")
    elsewhere = waiting(deployment, category="pause")
    counts = [
        await repository.record(note, epoch=epoch)
        for note in (failure, failure, elsewhere, failure, waiting(deployment), failure)
    ]
    assert counts == [1, 2, 1, 3, 1, 1]


async def test_note_under_a_newer_rollout_starts_again(
    database: Database, repository: Repository, deployment: Deployment, epoch: int
) -> None:
    """R-18: attempts of an older rollout never leak into a newer one."""
    await repository.apply([], [waiting(deployment)], epoch=epoch)
    assert deployment.deploying is not None
    await Service(database).add_revision("demo", deployment.deploying.spec, auto_activate=True)
    await repository.apply([], [waiting(deployment)], epoch=epoch)
    waits = [e for e in await repository.history_of(deployment.id) if e.result == "skipped"]
    assert [entry.attempts for entry in waits] == [1, 1]
    assert waits[0].rollout_id != waits[1].rollout_id


async def test_limit_gives_the_newest(
    repository: Repository, deployment: Deployment, epoch: int
) -> None:
    for number in range(5):
        note = waiting(deployment, error_code=str(number))
        await repository.apply([], [note], epoch=epoch)
    newest = await repository.history_of(deployment.id, limit=2)
    assert [entry.error_code for entry in newest] == ["4", "3"]


async def test_every_accepted_write_has_exactly_one_history_row(
    database: Database, repository: Repository, deployment: Deployment, epoch: int
) -> None:
    """I7, R-17: over random batches with repeats and stale versions in them."""
    chance = Random(7)  # noqa: S311 - the same batches every time, no secret
    await running_routes(repository, deployment, 8, epoch=epoch)
    older = (await repository.observe()).routes
    for _ in range(30):
        routes = (await repository.observe()).routes
        batch = [
            change(chance.choice([*routes, *older]), health=chance.choice(list(Health)))
            for _ in range(chance.randrange(1, 12))
        ]
        before = dict(database.sql_writes)
        result = await repository.apply(batch, epoch=epoch)
        written = {key: n - before[key] for key, n in database.sql_writes.items()}
        assert written["history"] == written["routes"] == result.applied
        older = routes
