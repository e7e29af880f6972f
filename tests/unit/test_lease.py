"""Leadership: one holder at a time, and an old epoch that cannot commit."""

import pytest

from controller.db.repository import Repository
from controller.db.session import Database, open_database
from controller.errors import LeaseLost
from controller.lease import Lease
from controller.model import Decision
from tests.fakes.database import a_deployment, expire_lease, new_routes


async def test_first_holder_gets_epoch_one_and_the_second_waits(database: Database) -> None:
    first, second = Lease(database, holder="first"), Lease(database, holder="second")
    assert await first.acquire() == 1
    assert await second.acquire() is None
    assert (first.epoch, second.epoch) == (1, None)


async def test_takeover_after_expiry_increments_the_epoch(database: Database) -> None:
    first, second = Lease(database, holder="first"), Lease(database, holder="second")
    await first.acquire()
    await expire_lease(database)
    assert await second.acquire() == 2


async def test_released_lease_is_free_at_once_and_keeps_counting(database: Database) -> None:
    first, second = Lease(database, holder="first"), Lease(database, holder="second")
    await first.acquire()
    await first.release()
    assert first.epoch is None
    assert await second.acquire() == 2


async def test_release_after_a_takeover_leaves_the_new_holder_alone(database: Database) -> None:
    first, second = Lease(database, holder="first"), Lease(database, holder="second")
    await first.acquire()
    await expire_lease(database)
    await second.acquire()
    await first.release()
    await second.renew()
    assert await first.acquire() is None


async def test_renewal_after_a_takeover_is_refused(database: Database) -> None:
    first, second = Lease(database, holder="first"), Lease(database, holder="second")
    await first.acquire()
    await expire_lease(database)
    await second.acquire()
    with pytest.raises(LeaseLost, match="first does not hold the lease"):
        await first.renew()
    assert first.epoch is None


async def test_paused_holder_whom_nobody_replaced_goes_on(database: Database) -> None:
    lease = Lease(database, holder="only")
    taken = await lease.acquire()
    await expire_lease(database)
    await lease.renew()
    assert lease.epoch == taken
    async with database.write(epoch=taken):
        pass


async def test_renewal_without_having_acquired_is_refused(database: Database) -> None:
    with pytest.raises(LeaseLost):
        await Lease(database, holder="nobody").renew()


async def test_two_holders_in_two_processes_never_both_get_it(
    database: Database, database_url: str
) -> None:
    """I8: the same row decides for every process."""
    other = open_database(database_url)
    try:
        taken = [
            await Lease(database, holder="here").acquire(),
            await Lease(other, holder="there").acquire(),
        ]
    finally:
        await other.close()
    assert taken == [1, None]


async def test_write_under_an_expired_lease_is_refused(database: Database) -> None:
    epoch = await Lease(database, holder="slow").acquire()
    await expire_lease(database)
    with pytest.raises(LeaseLost, match="epoch 1"):
        async with database.write(epoch=epoch):
            pytest.fail("the fence let an expired lease pass")


async def test_stale_epoch_cannot_commit_a_decision(database: Database) -> None:
    """I8: an ex-leader that slept through its takeover writes nothing."""
    repository = Repository(database)
    deployment = await a_deployment(database)
    stale = await Lease(database, holder="ex-leader").acquire()
    assert stale is not None
    await expire_lease(database)
    assert await Lease(database, holder="leader").acquire() == stale + 1

    decision = Decision(deployment=deployment, create=new_routes(deployment, 3))
    with pytest.raises(LeaseLost):
        await repository.commit(decision, epoch=stale)
    assert (await repository.observe()).routes == ()
