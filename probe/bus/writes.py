"""How a thousand keys are set at once, each with its time to live in the same command.

Used by the links for statuses. Three ways, the best that the server offers. None can leave a key
without its time to live. Pure: entries in, bytes out.
"""

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Final, assert_never

from probe.bus.batch import Parcel

Entry = str
"""A key and its value as two bulk strings of the protocol, the value pure ASCII."""
Entries = Mapping[int, Sequence[Entry]]
"""By their time to live in whole seconds; the later of two for one key wins."""
COMMAND_MAX: Final = 1000
"""Keys in one command at most: more gain nothing and hold the server longer."""


class WriteMode(StrEnum):
    """How keys are set in bulk."""

    MSETEX = "msetex"
    """One command per chunk (Valkey >= 9.1, Redis >= 8.4)."""
    LUA = "lua"
    """One script call per chunk: works on every server that allows EVAL."""
    PIPELINE = "pipeline"
    """One SET EX per key: works everywhere."""


_LUA_SET_EX: Final = (
    "for i = 2, #ARGV, 2 do redis.call('SET', ARGV[i], ARGV[i + 1], 'EX', ARGV[1]) end return 1"
)
"""The keys are arguments among others: no server that this is sent to is a cluster's."""


def entry(key: str, value: str) -> Entry:
    r"""Write a key and its value, which must be ASCII, as two bulk strings.

    >>> entry("k", "12")
    '$1\r\nk\r\n$2\r\n12\r\n'
    """
    return f"{_bulk(key)}{_bulk(value)}"


def read_entry(packed: Entry) -> tuple[str, str]:
    """Return the key and the value of an entry; neither may hold a line break.

    >>> read_entry(entry("k", "12"))
    ('k', '12')
    """
    _, key, _, value, _ = packed.split("\r\n")
    return key, value


def pack(entries: Entries, mode: WriteMode) -> Parcel:
    """Write the commands that set `entries`."""
    commands: list[str] = []
    replies = 0
    for ttl_s, chunk in _chunks(entries):
        count, ttl = len(chunk), _bulk(str(ttl_s))
        match mode:
            case WriteMode.MSETEX:
                head = f"*{2 * count + 4}\r\n{_bulk('MSETEX')}{_bulk(str(count))}"
                commands += (head, *chunk, _bulk("EX"), ttl)
                replies += 1
            case WriteMode.LUA:
                head = f"*{2 * count + 4}\r\n{_bulk('EVAL')}{_bulk(_LUA_SET_EX)}{_bulk('0')}{ttl}"
                commands += (head, *chunk)
                replies += 1
            case WriteMode.PIPELINE:
                head, tail = f"*5\r\n{_bulk('SET')}", f"{_bulk('EX')}{ttl}"
                commands += (head, f"{tail}{head}".join(chunk), tail)
                replies += count
            case _:
                assert_never(mode)
    return Parcel("".join(commands).encode(), replies)


def _bulk(word: str) -> str:
    return f"${len(word.encode())}\r\n{word}\r\n"


def _chunks(entries: Entries) -> Iterator[tuple[int, Sequence[Entry]]]:
    for ttl_s, group in entries.items():
        for start in range(0, len(group), COMMAND_MAX):
            yield ttl_s, group[start : start + COMMAND_MAX]
