"""The outbox: the newest effect on a subject waits, and nothing is forgotten that was replaced."""

import pytest
from sqlalchemy import update

from controller.db import outbox, tables
from controller.db.outbox import Effect
from controller.db.session import Database
from controller.lease import Lease
from tests.fakes.database import expire_lease, rows


async def put(database: Database, epoch: int, version: int, **given: str) -> None:
    wanted = {"kind": "proxy_table", "subject": "demo", "payload": f"{epoch}.{version}"} | given
    async with database.write(epoch=epoch) as write:
        await outbox.put(write, version=version, **wanted)


async def waiting(database: Database, **given: int) -> list[Effect]:
    async with database.read() as connection:
        return list(await outbox.pending(connection, **({"limit": 100} | given)))


async def forget(database: Database, epoch: int, *effects: Effect) -> None:
    async with database.write(epoch=epoch) as write:
        await outbox.done(write, effects)


async def next_epoch(database: Database) -> int:
    await expire_lease(database)
    taken = await Lease(database, holder="the-next", lease_s=3600).acquire()
    assert taken is not None
    return taken


async def test_only_the_newest_effect_on_a_subject_waits(database: Database, epoch: int) -> None:
    """R-50"""
    for version in (1, 3, 2, 3):
        await put(database, epoch, version)
    assert [e.payload for e in await waiting(database)] == [f"{epoch}.3"]


async def test_an_effect_of_a_newer_epoch_replaces_any_version(
    database: Database, epoch: int
) -> None:
    await put(database, epoch, 9)
    after = await next_epoch(database)
    await put(database, after, 1)
    (found,) = await waiting(database)
    assert (found.epoch, found.version) == (after, 1)


async def test_kinds_and_subjects_do_not_replace_each_other(database: Database, epoch: int) -> None:
    await put(database, epoch, 2)
    await put(database, epoch, 1, subject="other")
    await put(database, epoch, 1, kind="discovery")
    assert [(e.kind, e.subject) for e in await waiting(database)] == [
        ("proxy_table", "demo"),
        ("proxy_table", "other"),
        ("discovery", "demo"),
    ]


async def test_what_a_failed_write_wanted_does_not_wait(database: Database, epoch: int) -> None:
    """R-57"""

    async def fail_after_putting() -> None:
        async with database.write(epoch=epoch) as write:
            await outbox.put(write, kind="proxy_table", subject="demo", version=1, payload="")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail_after_putting()
    assert await waiting(database) == []


async def test_delivered_is_forgotten_and_what_replaced_it_meanwhile_is_not(
    database: Database, epoch: int
) -> None:
    await put(database, epoch, 1)
    await put(database, epoch, 1, subject="other")
    sent = await waiting(database)
    await put(database, epoch, 2)
    await forget(database, epoch, *sent)
    assert [(e.subject, e.version) for e in await waiting(database)] == [("demo", 2)]


async def test_pages_follow_each_other_without_a_gap(database: Database, epoch: int) -> None:
    for number in range(7):
        await put(database, epoch, 1, subject=f"subject-{number}")
    found: list[Effect] = []
    while page := await waiting(database, limit=3, after=found[-1].id if found else 0):
        assert len(page) <= 3
        found += page
    assert [e.subject for e in found] == [f"subject-{number}" for number in range(7)]


async def test_a_person_without_an_epoch_has_no_effects(database: Database) -> None:
    async with database.write(epoch=None) as write:
        with pytest.raises(ValueError, match="only a leader's write"):
            await outbox.put(write, kind="proxy_table", subject="demo", version=1, payload="")


async def test_backlog_counts_from_when_a_subject_fell_behind(
    database: Database, epoch: int
) -> None:
    async with database.read() as connection:
        assert await outbox.backlog(connection) == outbox.Backlog(count=0, oldest_age_ms=0)
    await put(database, epoch, 1)
    of = tables.outbox.c
    async with database.write(epoch=None) as write:
        aging = update(tables.outbox).values(created_at_ms=of.created_at_ms - 60_000)
        await write.connection.execute(aging)
    await put(database, epoch, 2)
    await put(database, epoch, 1, subject="other")
    async with database.read() as connection:
        found = await outbox.backlog(connection)
    assert found.count == 2
    assert 60_000 <= found.oldest_age_ms < 120_000


async def test_putting_what_waits_already_writes_no_row(database: Database, epoch: int) -> None:
    """I10"""
    await put(database, epoch, 1)
    before = database.sql_writes["outbox"]
    await put(database, epoch, 1)
    assert database.sql_writes["outbox"] == before
    assert len(await rows(database, tables.outbox.select())) == 1
