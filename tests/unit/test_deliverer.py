"""The deliverer: every effect arrives, in order, whatever its neighbours do."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

import anyio
import pytest

from controller.db import outbox
from controller.db.session import Database
from controller.errors import LeaseLost
from controller.metrics import ControllerMetrics
from controller.reconcile.outbox import AT_ONCE, BATCH, RETRY_S, Deliverer, Sender
from probe.errors import BusUnreachable
from tests.fakes.database import expire_lease
from tests.fakes.prober import until


class Receiver:
    """Takes what it is sent, but for subjects that a test lets fail."""

    def __init__(self) -> None:
        self.got: list[tuple[str, int, int, str]] = []
        self.asked: list[str] = []
        self.fails: dict[str, Exception] = {}
        self.hangs: set[str] = set()

    async def send(self, subject: str, epoch: int, version: int, payload: str) -> None:
        self.asked.append(subject)
        if subject in self.hangs:
            await anyio.sleep_forever()
        if subject in self.fails:
            raise self.fails[subject]
        self.got.append((subject, epoch, version, payload))

    @property
    def subjects(self) -> list[str]:
        return [subject for subject, *_ in self.got]


class Put(Protocol):
    async def __call__(self, *subjects: str, version: int = 1, kind: str = "table") -> None: ...


class Time:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def metrics() -> ControllerMetrics:
    return ControllerMetrics()


@pytest.fixture
def deliverer(
    database: Database, epoch: int, receiver: Receiver, metrics: ControllerMetrics, time: Time
) -> Deliverer:
    senders: dict[str, Sender] = {"table": receiver.send}
    return Deliverer(senders, database=database, metrics=metrics, epoch=epoch, clock=time)


@pytest.fixture
async def put(database: Database, epoch: int) -> Put:
    async def wanted(*subjects: str, version: int = 1, kind: str = "table") -> None:
        async with database.write(epoch=epoch) as write:
            for subject in subjects:
                await outbox.put(
                    write, kind=kind, subject=subject, version=version, payload=f"v{version}"
                )

    return wanted


async def left(database: Database) -> list[str]:
    async with database.read() as connection:
        return [e.subject for e in await outbox.pending(connection, limit=10_000)]


def value(metrics: ControllerMetrics, name: str) -> float:
    found = metrics.registry.get_sample_value(f"fleetpulse_{name}")
    assert found is not None
    return found


async def test_what_waits_arrives_with_its_epoch_and_version_and_is_forgotten(
    deliverer: Deliverer, put: Put, receiver: Receiver, epoch: int, database: Database
) -> None:
    await put("demo", version=7)
    await deliverer.deliver()
    assert receiver.got == [("demo", epoch, 7, "v7")]
    assert await left(database) == []
    await deliverer.deliver()
    assert len(receiver.got) == 1


async def test_one_that_fails_is_tried_again_a_second_later_and_delays_no_other(
    deliverer: Deliverer,
    put: Put,
    receiver: Receiver,
    time: Time,
    metrics: ControllerMetrics,
) -> None:
    receiver.fails["bad"] = BusUnreachable("the bus is away")
    receiver.fails["worse"] = ZeroDivisionError()
    await put("bad", "worse", "good")
    await deliverer.deliver()
    assert receiver.subjects == ["good"]
    assert value(metrics, "outbox_pending") == 2
    await put("late")
    await deliverer.deliver()
    assert receiver.subjects == ["good", "late"]
    assert receiver.asked.count("bad") == receiver.asked.count("worse") == 1
    time.now += RETRY_S
    receiver.fails.clear()
    await deliverer.deliver()
    assert sorted(receiver.subjects) == ["bad", "good", "late", "worse"]
    assert value(metrics, "outbox_pending") == 0
    assert value(metrics, "outbox_oldest_age_seconds") == 0


async def test_a_newer_version_of_one_that_failed_does_not_wait_its_second(
    deliverer: Deliverer, put: Put, receiver: Receiver
) -> None:
    receiver.fails["demo"] = BusUnreachable("the bus is away")
    await put("demo", version=1)
    await deliverer.deliver()
    receiver.fails.clear()
    await put("demo", version=2)
    await deliverer.deliver()
    assert [version for _, _, version, _ in receiver.got] == [2]


async def test_a_receiver_that_hangs_is_given_up_on(
    deliverer: Deliverer, put: Put, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controller.reconcile.outbox.SEND_WITHIN_S", 0.01)
    receiver.hangs.add("mute")
    await put("mute", "demo")
    await deliverer.deliver()
    assert receiver.subjects == ["demo"]


async def test_many_that_fail_are_all_tried_again_in_turn(
    deliverer: Deliverer, put: Put, receiver: Receiver, time: Time
) -> None:
    names = [f"bad-{number:03}" for number in range(3 * AT_ONCE)]
    receiver.fails = dict.fromkeys(names, BusUnreachable("away"))
    await put(*names)
    await deliverer.deliver()
    for _ in range(3):
        time.now += RETRY_S
        receiver.asked.clear()
        await deliverer.deliver()
        assert len(receiver.asked) == AT_ONCE
    receiver.fails.clear()
    for _ in range(3):
        time.now += RETRY_S
        await deliverer.deliver()
    assert sorted(receiver.subjects) == names


async def test_a_full_batch_of_failures_hides_nothing_behind_it(
    deliverer: Deliverer, put: Put, receiver: Receiver
) -> None:
    names = [f"bad-{number:04}" for number in range(BATCH + 1)]
    receiver.fails = dict.fromkeys(names, BusUnreachable("away"))
    await put(*names, "good")
    await deliverer.deliver()
    assert receiver.subjects == ["good"]


async def test_a_kind_nobody_delivers_waits_and_is_seen(
    deliverer: Deliverer, put: Put, receiver: Receiver, metrics: ControllerMetrics
) -> None:
    await put("demo", kind="of another version")
    await put("demo")
    await deliverer.deliver()
    assert receiver.subjects == ["demo"]
    assert value(metrics, "outbox_pending") == 1


async def test_a_lost_lease_ends_the_delivery_and_what_was_sent_is_sent_again(
    deliverer: Deliverer, put: Put, database: Database
) -> None:
    """I8"""
    await put("demo")
    await expire_lease(database)
    with pytest.raises(LeaseLost):
        await deliverer.deliver()
    assert await left(database) == ["demo"]


@asynccontextmanager
async def running(deliverer: Deliverer) -> AsyncIterator[None]:
    async with anyio.create_task_group() as group:
        group.start_soon(deliverer.run)
        yield
        group.cancel_scope.cancel()


async def test_a_wake_delivers_at_once(
    deliverer: Deliverer, put: Put, receiver: Receiver, database: Database
) -> None:
    async with running(deliverer):
        await put("demo")
        deliverer.wake()

        async def arrived() -> bool:
            return receiver.subjects == ["demo"] and not await left(database)

        await until(arrived, within_s=3)
