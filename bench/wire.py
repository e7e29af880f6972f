"""`python -m bench.wire COUNT PORT [--new]`: our wire by itself, beside the C floor.

The prober's own scheduler, sweep and pool, driven every 10 ms as the daemon drives them, with
its verdicts and counters. No bus, no metrics port, no statuses: what `python -m probe` costs
above this is theirs. With `--new` every probe opens a connection of its own. Ends when its
standard input does, and tells how the probes ended.
"""

import argparse
import asyncio
import gc
import json
import sys
from time import monotonic

import uvloop

from bench.farm import fleet
from probe.check import StatusJudge
from probe.daemon import GC_THRESHOLDS
from probe.http.keep import KeepRule
from probe.http.policy import ConnectPolicy
from probe.http.pool import HttpPool
from probe.limits import make_room
from probe.reasons import Reason
from probe.schedule.counters import Counters
from probe.schedule.scheduler import Scheduler
from probe.sweep import TICK_S, Sweep


async def probe(count: int, port: int, *, interval_s: float, rule: KeepRule) -> Counters:
    """Probe that many targets once an interval each, until there is no more standard input."""
    loop, over = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), over.set)
    room = make_room(0, 0)
    wire = HttpPool(
        StatusJudge(ConnectPolicy.of(["127.0.0.0/8"])),
        loop=loop,
        max_open=room.max_open,
        max_kept=room.max_kept,
        keep=rule,
    )
    sweep = Sweep(Scheduler(), wire, clock=monotonic, max_in_flight=room.max_in_flight)
    sweep.replace(0, fleet(count, port, interval_s=interval_s), now=monotonic())
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    planned = monotonic()
    while not over.is_set():
        await asyncio.sleep(max(0.0, planned - monotonic()))
        now = monotonic()
        sweep.tick(now)
        sweep.take_dirty(sweep.dirty)  # as a flusher would: each result is news once
        planned = max(planned + TICK_S, now)
    sweep.stop()
    loop.remove_reader(sys.stdin.fileno())
    return sweep.counters


def main() -> None:
    """Probe as the command line says, then tell how the probes ended."""
    parser = argparse.ArgumentParser(prog="python -m bench.wire")
    parser.add_argument("count", type=int)
    parser.add_argument("port", type=int)
    parser.add_argument("--new", action="store_true")
    parser.add_argument("--interval-s", type=float, default=1.0)
    asked = parser.parse_args()
    rule = KeepRule(fresh_every=1) if asked.new else KeepRule()
    counters = uvloop.run(probe(asked.count, asked.port, interval_s=asked.interval_s, rule=rule))
    failed = sum(by for reason, by in counters.reasons.items() if reason is not Reason.OK)
    print(json.dumps({"passed": counters.passed, "failed": failed}), flush=True)


if __name__ == "__main__":
    main()
