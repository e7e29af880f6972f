"""The prober's probes of itself, through the real pool, judge and loopback."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from time import monotonic

import anyio
import pytest
import structlog.testing

from probe.errors import SettingsError
from probe.health import Outcome, ended
from probe.http.policy import ConnectPolicy
from probe.http.pool import HttpPool
from probe.ledger import Ledger, Lifeline
from probe.reasons import Reason
from probe.schedule.scheduler import Check, Scheduler
from probe.selfcheck import RIGHT_IN_A_ROW
from probe.selfwatch.responder import Answer, Responder
from probe.selfwatch.selftest import OwnJudge, SelfTest, checks_of, judged
from probe.stages import Prober
from probe.sweep import Sweep
from probe.vitals import SelfTestResult
from probe.wire import ReplicaProbeTarget
from tests.fakes.bus import FakeBus, FakeServer
from tests.fakes.entries import target


def misjudge(patch: pytest.MonkeyPatch, judgement: Callable[..., Outcome]) -> None:
    """Judge so whatever is answered, on a fresh connection and on a kept one."""
    for way in ("replied", "answered"):
        patch.setattr(OwnJudge, way, judgement)


class Rig:
    """A prober with a real wire, driven test by test."""

    def __init__(self, *, max_open: int = 50) -> None:
        self.judge = OwnJudge(ConnectPolicy.of(["10.0.0.0/8"]))  # loopback is not allowed
        self.wire = HttpPool(
            self.judge, loop=asyncio.get_running_loop(), max_open=max_open, max_kept=max_open
        )
        ledger = Ledger()
        self.prober = Prober(
            instance="p",
            bus=FakeBus(FakeServer()),
            sweep=Sweep(Scheduler(), self.wire, clock=monotonic, max_in_flight=100),
            lifeline=Lifeline(ledger, clock=monotonic, backoff_max_s=1.0),
            ledger=ledger,
            clock=monotonic,
        )
        self.selftest = SelfTest(self.prober, self.wire, self.judge)
        self.checks: dict[Answer, Check] = {}

    @classmethod
    @asynccontextmanager
    async def running(cls, *, max_open: int = 50) -> AsyncIterator["Rig"]:
        rig = cls(max_open=max_open)
        server = await asyncio.get_running_loop().create_server(Responder, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        rig.checks = checks_of(port)
        rig.judge.exempt(tuple(check.target for check in rig.checks.values()))
        try:
            yield rig
        finally:
            rig.wire.close()
            server.close()

    async def test(self, times: int = 1) -> str | None:
        for _ in range(times):
            await self.selftest.step(self.checks)
        return self.prober.sick


async def test_a_prober_that_judges_rightly_trusts_itself() -> None:
    """S7."""
    async with Rig.running() as rig:
        assert await rig.test(5) is None
        assert rig.prober.vitals.selftests == {"right": 15, "wrong": 0, "void": 0}
        assert not any(rig.prober.sweep.counters.reasons.values())


async def test_both_a_kept_and_a_fresh_connection_are_tested() -> None:
    """S7: through the same pool as every replica."""
    async with Rig.running() as rig:
        await rig.test(4)
        opened = rig.wire.events["opened"]  # type: ignore[index] # a StrEnum's own value
        assert 4 < opened < 12


@pytest.mark.parametrize("lie", [Reason.CONNECT_REFUSED, Reason.RESPONSE_TIMEOUT])
async def test_calling_good_bad_twice_makes_sick_and_a_few_right_ones_well(
    lie: Reason, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S7."""
    async with Rig.running() as rig:
        with monkeypatch.context() as broken, structlog.testing.capture_logs() as logs:
            misjudge(broken, lambda *_a, **_k: ended(lie))
            assert await rig.test() is None
            why = await rig.test(3)
        assert why is not None
        assert lie.value in why
        assert [line["event"] for line in logs] == ["sick"]
        assert await rig.test(RIGHT_IN_A_ROW - 1) == why
        assert await rig.test() is None


async def test_calling_bad_good_makes_sick(monkeypatch: pytest.MonkeyPatch) -> None:
    """S7: a prober to which everything looks well is as sick."""
    async with Rig.running() as rig:
        misjudge(monkeypatch, lambda *_a, **_k: ended(Reason.OK))
        why = await rig.test(2)
        assert why is not None
        assert "/503 as passed" in why


async def test_no_room_says_nothing_of_its_judgement() -> None:
    """S1: ignorance is not failure, not our own either."""
    async with Rig.running(max_open=0) as rig:
        assert await rig.test(4) is None
        assert rig.prober.vitals.selftests[SelfTestResult.VOID] == 4
        assert rig.prober.vitals.selftests[SelfTestResult.WRONG] == 0


async def test_a_standstill_says_nothing_of_its_judgement(monkeypatch: pytest.MonkeyPatch) -> None:
    """S7: a stall is lag, which has its own reason."""
    async with Rig.running() as rig:

        def stalled(*_a: object, **_k: object) -> Outcome:
            rig.prober.sweep.counters.stalls += 1
            return ended(Reason.RESPONSE_TIMEOUT)

        misjudge(monkeypatch, stalled)
        assert await rig.test(4) is None


async def test_being_too_slow_for_want_of_cpu_is_no_illness(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """S7: a timeout of a starved prober is lag; what is wrong in time is wrong all the same."""
    async with Rig.running() as rig:
        rig.prober.vitals.busy = 0.99
        misjudge(monkeypatch, lambda *_a, **_k: ended(Reason.RESPONSE_TIMEOUT))
        assert await rig.test(4) is None
        misjudge(monkeypatch, lambda *_a, **_k: ended(Reason.OK))
        assert await rig.test(2) is not None


async def test_a_responder_that_is_gone_is_a_mistake_of_ours() -> None:
    async with Rig.running() as rig:
        for check in rig.checks.values():
            rig.wire.forget(check)
        rig.checks = checks_of(1)
        rig.judge.exempt(tuple(check.target for check in rig.checks.values()))
        assert "CONNECT_REFUSED" in (await rig.test(2) or "")


async def test_no_target_of_the_bus_passes_for_the_responder() -> None:
    """S7: the exemption is of these very objects, not of their address or id."""
    async with Rig.running() as rig:
        own = rig.checks[Answer.GOOD].target
        assert rig.judge.admit(own).refusal is None
        twin = ReplicaProbeTarget(**{name: getattr(own, name) for name in own.__struct_fields__})
        assert twin == own
        assert rig.judge.admit(twin).refusal is not None


async def test_it_lets_a_cancelled_test_go() -> None:
    async with Rig.running() as rig:
        with anyio.move_on_after(0.2):
            await rig.selftest.run()
        assert rig.prober.sick is None


def test_a_probe_error_is_void_and_an_end_that_never_came_is_wrong() -> None:
    assert judged(Answer.GOOD, ended(Reason.LOCAL_PORTS))[0] is SelfTestResult.VOID
    assert judged(Answer.RESET, None)[0] is SelfTestResult.WRONG


def test_a_target_on_loopback_is_refused_by_the_same_judge() -> None:
    judge = OwnJudge(ConnectPolicy.of(["10.0.0.0/8"]))
    assert judge.admit(target(1, replica_host="127.0.0.1")).refusal is not None
    with pytest.raises(SettingsError):
        ConnectPolicy.of(["not a network"])
