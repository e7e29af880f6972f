"""Another process that reads who has traffic, a thousand times a second.

Run as `python -m tests.fakes.swap_reader` with the database's URL and a deployment's id. Says
`reading` once it does, and when its stdin ends prints what it saw as JSON: how often each set of
revisions, and how many reads a second.
"""

import json
import sqlite3
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

import anyio
import asyncpg

RATE_HZ: Final = 1_000
QUERY: Final = (
    "SELECT revision_id FROM routes "
    "WHERE deployment_id = {} AND status = 'running' AND traffic = 'active' ORDER BY revision_id"
)

Seen = Counter[tuple[str, ...]]


def over() -> Callable[[], bool]:
    """Return what tells whether stdin has ended."""
    ended = threading.Event()

    def listen() -> None:
        sys.stdin.read()
        ended.set()

    threading.Thread(target=listen, daemon=True).start()
    return ended.is_set


def say(word: str) -> None:
    """Write a line that is read at once."""
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


def pause_s(began_s: float, reads: int) -> float:
    """Return how long to wait for the next read; those that are late follow at once."""
    return max(0.0, min(1 / RATE_HZ, began_s + reads / RATE_HZ - time.perf_counter()))


def read_sqlite(path: str, deployment: str, seen: Seen) -> None:
    """Read a file until told to end."""
    connection, ended = sqlite3.connect(path), over()
    say("reading")
    began_s, reads = time.perf_counter(), 0
    while not ended():
        rows = connection.execute(QUERY.format("?"), (deployment,)).fetchall()
        seen[tuple(row[0] for row in rows)] += 1
        reads += 1
        time.sleep(pause_s(began_s, reads))
    connection.close()


async def read_postgres(url: str, deployment: str, seen: Seen) -> None:
    """Read a server until told to end."""
    connection, ended = await asyncpg.connect(url), over()
    statement = await connection.prepare(QUERY.format("$1"))
    say("reading")
    began_s, reads = time.perf_counter(), 0
    while not ended():
        seen[tuple(row[0] for row in await statement.fetch(deployment))] += 1
        reads += 1
        await anyio.sleep(pause_s(began_s, reads))
    await connection.close()


def main(url: str, deployment: str) -> None:
    """Read, and tell."""
    seen: Seen = Counter()
    began_s = time.perf_counter()
    if url.startswith("sqlite:///"):
        read_sqlite(url.removeprefix("sqlite:///"), deployment, seen)
    else:
        anyio.run(read_postgres, url, deployment, seen)
    rate = seen.total() / (time.perf_counter() - began_s)
    say(json.dumps({"rate": rate, "seen": [[list(key), times] for key, times in seen.items()]}))


if __name__ == "__main__":
    main(*sys.argv[1:])
