"""What the machine gives and takes: cores, open files, the time and memory of a process tree."""

import os
import platform
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.case import Missing

_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
SPARE_FILES: Final = 200
"""Descriptors a process needs beside one for each connection."""


@contextmanager
def cores(*, prober: bool) -> Iterator[None]:
    """Let what is started in this block run on the prober's core, or on all the others.

    On shared cores the farm wakes where the prober sends, and interrupts it: 24 times in a tick
    of 10 ms where it lets the floor, which sends faster, go on. With one core there is no choice.
    """
    mine = os.sched_getaffinity(0)
    own = {min(mine)}
    os.sched_setaffinity(0, own if prober else mine - own or own)
    try:
        yield
    finally:
        os.sched_setaffinity(0, mine)


def raise_file_limit() -> int:
    """Let this process and what it starts open as many files as they may; return how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def need_files(connections: int) -> None:
    """Check that one process may hold that many connections.

    Raises:
        Missing: if the hard limit is lower.
    """
    hard = raise_file_limit()
    if hard != resource.RLIM_INFINITY and connections + SPARE_FILES > hard:
        raise Missing(
            f"{connections:,} connections need {connections + SPARE_FILES:,} open files, but the "
            f"limit is {hard:,}: ask for fewer, or raise it (ulimit -Hn)"
        )


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process and all its descendants have used, and hold now."""

    cpu_s: float
    rss_bytes: int


def usage(pid: int) -> Usage:
    """Add up user and system time and resident memory of a process tree.

    Time comes from each process's own clock, in nanoseconds; ticks of 10 ms, as /proc/PID/stat
    has them, would be a tenth of what a cheap prober uses in a second. What has ended is not in.
    """
    cpu_s, pages = 0.0, 0
    for one in tree(pid):
        try:
            cpu_s += time.clock_gettime(~one << 3 | 2)  # CPUCLOCK_SCHED of that process
            pages += int(Path(f"/proc/{one}/statm").read_text().split()[1])
        except OSError:
            continue  # ended between the listing and now
    return Usage(cpu_s, pages * _PAGE_BYTES)


def tree(pid: int) -> Iterator[int]:
    """Yield a process and all its descendants."""
    yield pid
    for task in Path(f"/proc/{pid}/task").glob("*"):
        try:
            children = (task / "children").read_text().split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        for child in children:
            yield from tree(int(child))


def described() -> str:
    """Return the machine in one line, without what would name it."""
    kernel, _, _ = platform.release().partition("-")
    return (
        f"{os.cpu_count()} cores {platform.machine()}, {_cpu()}, Linux {kernel}, "
        f"Python {platform.python_version()}"
    )


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return "unknown processor"
