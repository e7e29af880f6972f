"""The three ways one would write it first (`bench.naive`), as probers of a round."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final

from bench.case import Regime, Values
from bench.running import Peer, Place, Process, Running, never, started


class _Naive(Process):
    def counters(self) -> Values:
        lines = self.log().splitlines()
        said = json.loads(lines[-1]) if lines else {"passed": 0, "failed": 0}
        return {name: float(value) for name, value in said.items()}

    def found(self, before: Values, after: Values, took_s: float) -> Values:
        failed, passed = (after[name] - before[name] for name in ("failed", "passed"))
        return {"failed_share": failed / (passed + failed)} if passed + failed else {}


@contextmanager
def _run(kind: str, place: Place) -> Iterator[Running]:
    case = place.case
    command = [sys.executable, "-m", "bench.naive", kind, str(case.targets)]
    with started(place, [*command, str(case.interval_s), str(place.farm.port)]) as child:
        yield _Naive(child)


_ALL_AT_ONCE: Final = "all targets gathered once an interval"

AIOHTTP: Final = Peer(
    f"aiohttp with one session, {_ALL_AT_ONCE}", partial(_run, "aiohttp_shared"), never
)
AIOHTTP_EACH: Final = Peer(
    f"aiohttp with a session for each probe, {_ALL_AT_ONCE}",
    partial(_run, "aiohttp_each"),
    never,
    (Regime.NEW,),
)
HTTPX: Final = Peer(
    f"httpx.AsyncClient, one for all, {_ALL_AT_ONCE}", partial(_run, "httpx_shared"), never
)
