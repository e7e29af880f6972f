"""Every error that a server answers is an error of ours, and never an absent key (R-05).

Most of them are hard to bring about, so a server of the test's own says them; what it is told is
the real client's.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path

import pytest

from controller.bus import ControlBus
from probe.bus.connect import connect
from probe.bus.prober import ProbeBus
from probe.bus.targets import TargetFeed
from probe.bus.writes import WriteMode
from probe.errors import BusRefused
from probe.reasons import Reason
from probe.wire import HealthChange, Keys, encode
from tests.fakes.entries import BEAT, replica, status, target, writing

KEYS = Keys("t:")
ANSWERS = (
    "READONLY You can't write against a read only replica.",
    "LOADING Redis is loading the dataset in memory",
    "OOM command not allowed when used memory > 'maxmemory'.",
    "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
    "NOPERM User prober has no permissions to access one of the keys used as arguments",
    "WRONGTYPE Operation against a key holding the wrong kind of value",
    "CLUSTERDOWN The cluster is down",
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    "MISCONF Redis is configured to save RDB snapshots, but it's unable to persist to disk.",
    "NOREPLICAS Not enough good replicas to write.",
    "MOVED 866 127.0.0.1:1",
    "ERR something new",
)


class Refuser:
    """Greets, and answers everything else with one error."""

    def __init__(self, answer: str) -> None:
        self._answer = f"-{answer}\r\n".encode()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                count = int((await reader.readline())[1:])
                words = [await self._word(reader) for _ in range(count)]
                match words[0]:
                    case b"HELLO":
                        writer.write(b"%1\r\n+proto\r\n:3\r\n")
                    case b"CLIENT":
                        writer.write(b"+OK\r\n")
                    case _:
                        writer.write(self._answer)
        except (ValueError, OSError, asyncio.IncompleteReadError):
            pass  # the client has gone
        finally:
            writer.close()

    @staticmethod
    async def _word(reader: asyncio.StreamReader) -> bytes:
        length = int((await reader.readline())[1:])
        return (await reader.readexactly(length + 2))[:-2]


@pytest.fixture(params=ANSWERS, ids=[answer.split()[0] for answer in ANSWERS])
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    path = tmp_path / "bus.sock"
    async with await asyncio.start_unix_server(Refuser(request.param).serve, path):
        yield f"unix://{path}"


async def each_is_refused(calls: list[Callable[[], Awaitable[object]]]) -> None:
    for call in calls:
        with pytest.raises(BusRefused):
            await call()


@pytest.mark.parametrize("mode", list(WriteMode))
async def test_a_prober_is_refused_and_not_told_of_absence(url: str, mode: WriteMode) -> None:
    """R-05."""
    item = (KEYS.status(replica(1)), encode(status(1)), 120)
    change = HealthChange(replica_id=replica(1), healthy=True, reason=Reason.OK)
    async with aclosing(ProbeBus(connect(url), KEYS, write_mode=mode)) as bus:
        await each_is_refused(
            [
                bus.hello,
                bus.poll,
                lambda: bus.read_targets([1], 0.0),
                lambda: bus.read_statuses([replica(1)]),
                lambda: bus.write_statuses(writing([item])),
                lambda: bus.heartbeat(BEAT),
                lambda: bus.read_probers(0.0),
                lambda: bus.read_lives([replica(1)]),
                lambda: bus.retire("p-1"),
                lambda: bus.announce([change]),
            ]
        )


async def test_a_controller_is_refused_and_not_told_of_absence(url: str) -> None:
    """R-05."""
    async with aclosing(ControlBus(connect(url), KEYS)) as bus:
        await each_is_refused(
            [
                bus.hello,
                bus.ensure_epoch,
                lambda: bus.read_evidence([replica(1)]),
                lambda: bus.remove_targets([replica(1)]),
                lambda: bus.changes(None),
                lambda: bus.changes("0-0", block_ms=1),
            ]
        )
        report = await bus.write_targets([target(1)])
        assert [failed for failed, _ in report.failed] == [replica(1)]


async def test_a_feed_is_refused_and_not_told_of_absence(url: str) -> None:
    """R-05."""
    async with aclosing(TargetFeed(connect(url), KEYS)) as feed:
        await each_is_refused([lambda: feed.load([target(1)]), feed.list])
