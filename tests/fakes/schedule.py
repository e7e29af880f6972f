"""A scheduler driven by hand, tick by tick, without a wire."""

from probe.health import ended
from probe.reasons import Reason
from probe.schedule.scheduler import Check, Scheduler
from probe.wire import ReplicaProbeTarget

PASSED, REFUSED, NO_FDS = ended(Reason.OK), ended(Reason.CONNECT_REFUSED), ended(Reason.LOCAL_FDS)
T0 = 1000.0
TICK = 0.01


def scheduler_of(*targets: ReplicaProbeTarget) -> Scheduler:
    scheduler = Scheduler()
    scheduler.replace(0, targets, now=T0)
    return scheduler


def only(scheduler: Scheduler) -> Check:
    (check,) = scheduler
    return check


def starts(
    scheduler: Scheduler, since: float, until: float, *, answer: bool = True, limit: int = 100_000
) -> list[tuple[float, Check]]:
    """Tick from one moment to another, answering each probe at once; return who started when."""
    seen: list[tuple[float, Check]] = []
    for tick in range(round((until - since) / TICK) + 1):
        now = since + tick * TICK
        for check in scheduler.due(now, limit):
            seen.append((now, check))
            if answer:
                scheduler.record(check, PASSED, now)
    return seen


def first_start(scheduler: Scheduler) -> tuple[Check, float]:
    """Return the check that starts first, in flight, and when it did."""
    for tick in range(200):
        now = T0 + tick * TICK
        if started := scheduler.due(now, 1):
            return started[0], now
    raise AssertionError("nothing was due for two seconds")


def again(scheduler: Scheduler, check: Check, now: float) -> None:
    """Start a check out of turn."""
    scheduler.restart(check, now)
    assert check in scheduler.due(now, 9)
