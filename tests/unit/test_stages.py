"""The stages, driven step by step: bus and wire are doubles, time is a number."""

from collections.abc import Callable

import anyio
import pytest
import structlog.testing

from probe.bus.prober import Poll
from probe.errors import BusUnreachable
from probe.flusher import LOGGED_CHANGES_MAX
from probe.health import ended
from probe.ledger import BACKOFF_FIRST_S, Lifeline
from probe.reasons import OutcomeKind, Reason
from probe.stages import repeat, supervise
from probe.wire import decode_heartbeat
from tests.fakes.bus import FakeBus
from tests.fakes.entries import replica, target
from tests.fakes.rig import LATE_S, Rig
from tests.fakes.wire import PASSED, REFUSED


@pytest.fixture
def rig() -> Rig:
    return Rig()


class TestFlusher:
    async def load(self, rig: Rig, *numbers: int, **fields: object) -> None:
        for number in numbers:
            rig.server.put_target(target(number, interval_s=1.0, **fields))
        await rig.refresher.step()
        rig.wire.answers_at_once = PASSED

    async def test_a_result_becomes_a_status_with_a_time_to_live(self, rig: Rig) -> None:
        await self.load(rig, 1, generation=3)
        rig.advance(1.1)
        await rig.flusher.flush()
        found = rig.status(1)
        assert found is not None
        assert found.healthy
        assert (found.outcome, found.reason) == (OutcomeKind.PASSED, Reason.OK)
        assert (found.prober, found.generation) == ("p-1", 3)
        _, expires_at = rig.server.strings[rig.keys.status(replica(1))]
        assert expires_at - rig.server.now_s == pytest.approx(120)

    async def test_a_sick_prober_writes_nothing_and_its_word_stays_void(self, rig: Rig) -> None:
        """S7."""
        await self.load(rig, 1)
        rig.prober.sick = "calls good bad"
        rig.advance(1.1)
        await rig.flusher.flush()
        rig.prober.sick = None
        await rig.flusher.flush()
        assert rig.status(1) is None
        assert not rig.server.changes
        assert rig.ledger.results_dropped == 1
        rig.advance(1.0)
        await rig.flusher.flush()
        assert rig.status(1) is not None

    async def test_times_on_the_bus_are_the_bus_s(self, rig: Rig) -> None:
        await self.load(rig, 1)
        rig.advance(2.1)
        ended_at = rig.check(1).ended_at
        await rig.flusher.flush()
        found = rig.status(1)
        assert found is not None
        assert found.last_check == pytest.approx(rig.server.now_s - (rig.now - ended_at), abs=0.01)
        assert found.changed_at == pytest.approx(found.last_check - 1.0, abs=0.02)

    async def test_a_stepped_bus_clock_is_followed_at_the_next_poll(self, rig: Rig) -> None:
        await self.load(rig, 1)
        rig.server.now_s += 120
        await rig.refresher.step()
        rig.advance(1.1)
        await rig.flusher.flush()
        found = rig.status(1)
        assert found is not None
        assert found.last_check == pytest.approx(rig.server.now_s, abs=1.1)

    async def test_a_time_that_was_told_long_ago_is_not_believed(self, rig: Rig) -> None:
        """A process that was stopped while the bus answered finds the answer afterwards."""
        await self.load(rig, 1)
        offset_s = rig.life.offset_s
        poll = rig.prober.bus.poll

        async def poll_and_be_stopped() -> Poll:
            told = await poll()
            rig.now += 150
            rig.server.now_s += 150
            return told

        rig.prober.bus.poll = poll_and_be_stopped  # type: ignore[method-assign]
        await rig.refresher.step()
        assert rig.life.offset_s == offset_s

    async def test_our_own_fault_refreshes_no_last_check(self, rig: Rig) -> None:
        """S1."""
        await self.load(rig, 1)
        rig.advance(1.1)
        await rig.flusher.flush()
        before = rig.status(1)
        rig.wire.answers_at_once = ended(Reason.LOCAL_FDS)
        rig.advance(1.0)
        await rig.flusher.flush()
        after = rig.status(1)
        assert before is not None
        assert after is not None
        assert after.outcome is OutcomeKind.PROBE_ERROR
        assert after.healthy
        assert after.last_check == before.last_check

    async def test_a_change_is_announced_after_its_status(self, rig: Rig) -> None:
        await self.load(rig, 1, max_retries=1)
        rig.advance(1.1)
        await rig.flusher.flush()
        rig.wire.answers_at_once = REFUSED
        rig.advance(1.0)
        await rig.flusher.flush()
        assert [(c.healthy, c.reason) for c in rig.server.changes] == [
            (True, Reason.OK),
            (False, Reason.CONNECT_REFUSED),
        ]
        assert rig.ledger.transitions == {
            ("unhealthy", "healthy"): 1,
            ("healthy", "unhealthy"): 1,
        }

    async def test_a_result_older_than_five_seconds_is_dropped(self, rig: Rig) -> None:
        await self.load(rig, 1)
        rig.advance(1.1)
        rig.now += LATE_S + 1.1  # as a process that was stopped
        await rig.flusher.flush()
        assert rig.status(1) is None
        assert rig.ledger.results_dropped == 1
        assert rig.ledger.statuses_written == 0

    async def test_a_failed_write_leaves_the_newest_result_waiting(self, rig: Rig) -> None:
        await self.load(rig, 1, 2)
        rig.advance(1.1)
        rig.server.away = True
        with pytest.raises(BusUnreachable):
            await rig.flusher.flush()
        assert rig.sweep.dirty == 2
        rig.advance(1.0)
        assert rig.sweep.dirty == 2
        rig.server.away = False
        await rig.flusher.flush()
        found = rig.status(1)
        assert found is not None
        assert found.consecutive_successes == rig.check(1).streak.consecutive_successes >= 2
        assert len(rig.server.changes) == 2

    async def test_seq_grows_with_every_write(self, rig: Rig) -> None:
        await self.load(rig, 1)
        seen = []
        for _ in range(3):
            rig.advance(1.0)
            await rig.flusher.flush()
            found = rig.status(1)
            assert found is not None
            seen.append(found.seq)
        assert seen == sorted(set(seen))

    async def test_a_removed_target_s_result_is_not_written(self, rig: Rig) -> None:
        await self.load(rig, 1)
        rig.advance(1.1)
        rig.remove(replica(1))
        await rig.refresher.step()
        await rig.flusher.flush()
        assert rig.status(1) is None

    async def test_a_fleet_that_changes_is_logged_in_few_lines(self, rig: Rig) -> None:
        await self.load(rig, *range(50))
        rig.advance(1.1)
        with structlog.testing.capture_logs() as logs:
            await rig.flusher.flush()
        assert len(logs) == LOGGED_CHANGES_MAX + 1
        assert logs[-1]["more"] == 50 - LOGGED_CHANGES_MAX

    async def test_enough_results_end_the_wait(self, rig: Rig) -> None:
        await self.load(rig, 1, 2)
        async with anyio.create_task_group() as group:
            group.start_soon(rig.flusher.run)
            rig.advance(1.1)
            await until(lambda: rig.ledger.statuses_written >= 2)
            group.cancel_scope.cancel()


class TestHeartbeat:
    async def test_it_says_how_well_we_live(self, rig: Rig) -> None:
        rig.server.put_target(target(1, interval_s=1.0))
        await rig.refresher.step()
        rig.wire.answers_at_once = PASSED
        rig.advance(10.0)
        rig.ticker.tick(rig.now + 0.01, late_s=0.25)
        rig.now += 0.01
        await rig.heartbeat.step()
        value = rig.server.get(rig.keys.heartbeat("p-1"))
        assert value is not None
        beat = decode_heartbeat(value)
        assert (beat.instance, beat.partitions, beat.targets) == ("p-1", (0, 1), 1)
        assert beat.probes_per_second == pytest.approx(1.0, abs=0.11)
        assert beat.loop_lag_ms == 250
        assert beat.at - beat.started_at == pytest.approx(10, abs=0.1)
        assert rig.ticker.lag_max_s == 0
        assert (beat.sick, beat.error_ratio) == ("", 0.0)

    async def test_it_says_how_much_of_its_work_failed_by_its_own_fault(self, rig: Rig) -> None:
        """S6."""
        rig.server.put_target(target(1, interval_s=1.0))
        await rig.refresher.step()
        rig.wire.answers_at_once = PASSED
        rig.advance(3.1)
        rig.wire.answers_at_once = ended(Reason.LOCAL_FDS)
        rig.advance(1.0)
        rig.prober.sick = "its own responder was judged wrong"
        for wanted in (0.25, 0.0):
            await rig.heartbeat.step()
            beat = decode_heartbeat(rig.server.get(rig.keys.heartbeat("p-1")) or b"")
            assert beat.sick == "its own responder was judged wrong"
            assert beat.error_ratio == wanted


class TestOutage:
    async def test_it_is_said_once_when_the_bus_goes_and_once_when_it_is_back(
        self, rig: Rig
    ) -> None:
        with structlog.testing.capture_logs() as logs:
            rig.server.away = True
            for _ in range(5):
                with pytest.raises(BusUnreachable):
                    await rig.refresher.step()
            rig.now += 30
            rig.server.away = False
            await rig.refresher.step()
            await rig.refresher.step()
        assert [entry["event"] for entry in logs] == ["bus_lost", "bus_back"]
        assert logs[1]["away_s"] == 30
        assert rig.ledger.bus_errors == 5

    def test_waits_grow_are_jittered_and_capped(self, rig: Rig) -> None:
        for attempt in range(100):
            longest = min(2.0, BACKOFF_FIRST_S * 2**attempt)
            waits = [rig.life.backoff_s(attempt) for _ in range(20)]
            assert all(longest / 2 <= wait <= longest for wait in waits)
            assert len(set(waits)) > 1

    async def test_a_step_is_repeated_through_an_outage(self, rig: Rig) -> None:
        steps: list[float] = []

        async def step() -> None:
            steps.append(rig.now)
            await FakeBus(rig.server).poll()

        async with anyio.create_task_group() as group:
            rig.server.away = True
            short = Lifeline(rig.ledger, clock=rig.clock, backoff_max_s=0.001)

            async def run() -> None:
                await repeat(step, period_s=0.001, life=short)

            group.start_soon(run)
            await until(lambda: len(steps) > 3)
            rig.server.away = False
            await until(lambda: len(steps) > 6)
            group.cancel_scope.cancel()


class TestSupervision:
    async def test_a_faulty_stage_costs_the_others_nothing(
        self, rig: Rig, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("probe.stages.RESTART_PAUSE_S", 0.001)
        starts: list[str] = []

        async def faulty() -> None:
            starts.append("faulty")
            await anyio.lowlevel.checkpoint()
            raise ZeroDivisionError

        async def sound() -> None:
            starts.append("sound")
            await anyio.sleep_forever()

        with structlog.testing.capture_logs() as logs:
            async with anyio.create_task_group() as group:
                group.start_soon(supervise, "faulty", faulty, rig.ledger)
                group.start_soon(supervise, "sound", sound, rig.ledger)
                await until(lambda: starts.count("faulty") > 2)
                group.cancel_scope.cancel()
        assert starts.count("sound") == 1
        assert rig.ledger.restarts["faulty"] >= 2
        assert {entry["stage"] for entry in logs} == {"faulty"}


async def until(condition: Callable[[], bool], *, within_s: float = 5.0) -> None:
    """Give way to other tasks until `condition` holds."""
    with anyio.fail_after(within_s):
        while not condition():  # noqa: ASYNC110 - the condition is somebody else's plain number
            await anyio.sleep(0.001)
