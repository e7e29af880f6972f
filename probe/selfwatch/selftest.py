"""The prober's probes of itself: does it still call good good, and bad bad?

A stage of the daemon. A responder of our own answers on loopback in every way of `Answer`; each is
asked through the same pool and judge as every replica, past the schedule and the
deployments, so that no replica waits for it. Which verdict follows from a run of mistakes is
`probe.selfcheck`'s to say.
"""

import asyncio
from typing import Any, Final

import anyio
import structlog

from probe.check import StatusJudge
from probe.health import Outcome
from probe.http.policy import ConnectPolicy
from probe.http.request import Prepared
from probe.ledger import bump
from probe.reasons import OutcomeKind, Reason
from probe.schedule.admission import BUSY_HIGH
from probe.schedule.scheduler import Check
from probe.selfcheck import Trust
from probe.selfwatch.responder import Answer, Responder
from probe.stages import Prober
from probe.sweep import Wire
from probe.vitals import SelfTestResult
from probe.wire import ReplicaId, ReplicaProbeTarget

PERIOD_S: Final = 2.0
TIMEOUT_S: Final = 1.0
HOST: Final = "127.0.0.1"

_log = structlog.get_logger("probe.selfwatch.selftest")


_EXPECTED: Final = {
    Answer.GOOD: OutcomeKind.PASSED,
    Answer.BAD: OutcomeKind.FAILED,
    Answer.RESET: OutcomeKind.FAILED,
}
_TIMEOUTS: Final = frozenset({Reason.CONNECT_TIMEOUT, Reason.RESPONSE_TIMEOUT})


class OwnJudge(StatusJudge):
    """Judges as ever, and admits our own responder past the operator's policy.

    By identity: whatever a target from the bus says, it is another object.
    """

    __slots__ = ("_own",)

    def __init__(self, policy: ConnectPolicy, **sources: Any) -> None:  # noqa: ANN401 - StatusJudge's
        super().__init__(policy, **sources)
        self._own: tuple[tuple[ReplicaProbeTarget, Prepared], ...] = ()

    def exempt(self, targets: tuple[ReplicaProbeTarget, ...]) -> None:
        """Admit these very targets, and none that only look like them."""
        judge = StatusJudge(ConnectPolicy.of((f"{HOST}/32",)))
        self._own = tuple((target, judge.admit(target)) for target in targets)

    def admit(self, target: ReplicaProbeTarget) -> Prepared:
        """Prepare a target; raises as `StatusJudge.admit` does."""
        for own, prepared in self._own:
            if own is target:
                return prepared
        return super().admit(target)


class SelfTest:
    """Asks the responder in every way, every `PERIOD_S`, and says what that makes of us."""

    def __init__(self, prober: Prober, wire: Wire, judge: OwnJudge) -> None:
        self._prober = prober
        self._wire = wire
        self._judge = judge
        self._trust = Trust()
        self._asked: Check | None = None
        self._told: Outcome | None = None
        self._ended = anyio.Event()
        prober.sweep.aside = self._take

    async def run(self) -> None:
        """Test for ever."""
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Responder, HOST, 0)
        try:
            await self._run(server.sockets[0].getsockname()[1])
        finally:
            server.close()

    async def _run(self, port: int) -> None:
        checks = checks_of(port)
        self._judge.exempt(tuple(check.target for check in checks.values()))
        try:
            while True:
                await anyio.sleep(PERIOD_S)
                await self.step(checks)
        finally:
            for check in checks.values():
                self._wire.forget(check)

    async def step(self, checks: dict[Answer, Check]) -> None:
        """Test once; every mistake in it counts as one."""
        mistakes: list[str] = []
        for answer, check in checks.items():
            stalls = self._prober.sweep.counters.stalls
            outcome = await self._ask(check)
            result, mistake = judged(answer, outcome)
            if result is SelfTestResult.WRONG and self._was_slow(outcome, stalls):
                result = SelfTestResult.VOID
            bump(self._prober.vitals.selftests, result.value)
            mistakes.extend([mistake] * (result is SelfTestResult.WRONG))
            if result is SelfTestResult.VOID:
                return
        self._conclude("; ".join(mistakes) or None)

    def _conclude(self, mistake: str | None) -> None:
        before, self._trust = self._trust, self._trust.after(mistake)
        if self._trust.sick == before.sick:
            return
        self._prober.sick = self._trust.sick
        if self._trust.sick is not None:
            _log.error("sick", why=self._trust.sick, then="nothing is written")
        else:
            _log.info("well_again", was=before.sick)

    def _was_slow(self, outcome: Outcome | None, stalls: int) -> bool:
        """Tell whether lag explains a mistake: we stood still, or were too slow to be in time."""
        if self._prober.sweep.counters.stalls != stalls:
            return True
        in_time = outcome is None or outcome.reason not in _TIMEOUTS
        return not in_time and self._prober.vitals.busy > BUSY_HIGH

    async def _ask(self, check: Check) -> Outcome | None:
        """Probe once, past the schedule; None if it never ended."""
        clock = self._prober.clock
        self._asked, self._told, self._ended = check, None, anyio.Event()
        check.started_at = check.due_at = clock()
        self._wire.start(check, check.started_at)
        look_at: float | None = check.started_at + min(check.connect_timeout_s, check.timeout_s)
        while look_at is not None and not self._ended.is_set():
            with anyio.move_on_after(max(0.0, look_at - clock())):
                await self._ended.wait()
            if not self._ended.is_set():
                look_at = self._wire.expire(check, clock())
        self._asked = None
        return self._told

    def _take(self, check: Check, outcome: Outcome) -> None:
        if check is self._asked:
            self._told = outcome
            self._ended.set()


def judged(answer: Answer, outcome: Outcome | None) -> tuple[SelfTestResult, str]:
    """Compare a verdict on our own responder with the truth; say what is wrong with it."""
    if outcome is None:
        return SelfTestResult.WRONG, f"a probe of its own {answer.value} never ended"
    if outcome.kind is OutcomeKind.PROBE_ERROR:
        return SelfTestResult.VOID, ""
    if outcome.kind is _EXPECTED[answer]:
        return SelfTestResult.RIGHT, ""
    found = f"{outcome.kind.value} ({outcome.reason.value})"
    return SelfTestResult.WRONG, f"it judged its own {answer.value} as {found}"


def checks_of(port: int) -> dict[Answer, Check]:
    """Return a check for each answer of our own responder."""
    return {answer: Check(_target(answer, port)) for answer in Answer}


def _target(answer: Answer, port: int) -> ReplicaProbeTarget:
    return ReplicaProbeTarget(
        replica_id=ReplicaId("00000000-0000-4000-8000-000000000000"),
        replica_host=HOST,
        inference_port=port,
        health_path=answer.value,
        interval_s=PERIOD_S,
        timeout_s=TIMEOUT_S,
        connect_timeout_s=TIMEOUT_S,
    )
