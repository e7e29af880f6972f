"""A wire without sockets: the test decides when and how each probe ends."""

from collections.abc import Callable

from probe.health import Outcome, ended
from probe.reasons import Reason
from probe.schedule.scheduler import Check

PASSED = ended(Reason.OK, http_status=200, total_s=0.002)
REFUSED = ended(Reason.CONNECT_REFUSED, total_s=0.001)


class FakeWire:
    """Keeps the promise of `probe.sweep.Wire`, and counts whether its caller keeps his."""

    done: Callable[[Check, Outcome], None]

    def __init__(self) -> None:
        self.probing: dict[Check, float] = {}
        self.starts: list[tuple[float, Check]] = []
        self.expired: list[Check] = []
        self.cancelled: list[Check] = []
        self.forgotten: list[Check] = []
        self.closed = False
        self.answers_at_once: Outcome | None = None
        self.connected = False

    @property
    def open_connections(self) -> int:
        return len(self.probing)

    def start(self, check: Check, now: float) -> None:
        assert check not in self.probing, "a second probe of a target in flight"
        self.starts.append((now, check))
        self.probing[check] = now
        if self.answers_at_once is not None:
            self.answer(check, self.answers_at_once)

    def answer(self, check: Check, outcome: Outcome = PASSED) -> None:
        del self.probing[check]
        self.done(check, outcome)

    def answer_all(self, outcome: Outcome = PASSED) -> None:
        for check in list(self.probing):
            self.answer(check, outcome)

    def expire(self, check: Check, now: float) -> float | None:
        full = check.started_at + check.timeout_s
        if self.connected and now <= full:
            return full
        self.expired.append(check)
        reason = Reason.RESPONSE_TIMEOUT if self.connected else Reason.CONNECT_TIMEOUT
        self.answer(check, ended(reason, total_s=now - check.started_at))
        return None

    def cancel(self, check: Check) -> None:
        del self.probing[check]
        self.cancelled.append(check)

    def forget(self, check: Check) -> None:
        self.probing.pop(check, None)
        self.forgotten.append(check)

    def close(self) -> None:
        self.closed = True
