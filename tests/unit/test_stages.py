"""The stages, driven step by step: bus and wire are doubles, time is a number."""

from collections.abc import Callable

import anyio
import pytest
import structlog.testing

from probe.bus import Poll
from probe.errors import BusUnreachable, UnsupportedCheck
from probe.health import ended
from probe.ledger import BACKOFF_FIRST_S, Ledger, Lifeline
from probe.reasons import OutcomeKind, Reason
from probe.refresh import AMNESIA_GRACE_S, REJECTED_LOG_PERIOD_S, Refresh
from probe.scheduler import Check, Scheduler
from probe.stages import (
    LOGGED_CHANGES_MAX,
    Flusher,
    Heartbeat,
    Prober,
    Refresher,
    Ticker,
    repeat,
    supervise,
)
from probe.sweep import Sweep
from probe.wire import (
    PARTITIONS,
    TARGET_TTL_S,
    Keys,
    ReplicaHealthStatus,
    ReplicaId,
    ReplicaProbeTarget,
    decode_heartbeat,
    decode_status,
    encode,
    partition_of,
)
from tests.fakes.bus import FakeBus, FakeServer
from tests.fakes.entries import replica, status, target
from tests.fakes.wire import PASSED, REFUSED, FakeWire

LATE_S = 5.0
FULL_ROUND = 30
"""Polls until everything was read again, here."""


def admit(entry: ReplicaProbeTarget) -> None:
    if entry.scheme != "http":
        raise UnsupportedCheck(f"scheme: {entry.scheme!r} is not supported yet; use 'http'")


class Rig:
    """One prober on doubles."""

    def __init__(self) -> None:
        self.now = 5000.0
        self.server = FakeServer()
        self.keys = Keys()
        self.wire = FakeWire()
        self.ledger = Ledger()
        self.sweep = Sweep(Scheduler(), self.wire, clock=self.clock, max_in_flight=1000)
        self.life = Lifeline(self.ledger, clock=self.clock, backoff_max_s=2.0)
        self.prober = Prober(
            instance="p-1",
            bus=FakeBus(self.server),
            sweep=self.sweep,
            lifeline=self.life,
            ledger=self.ledger,
            clock=self.clock,
        )
        refresh = Refresh(
            range(PARTITIONS), polls_per_round=FULL_ROUND, admit=admit, ledger=self.ledger
        )
        self.refresher = Refresher(self.prober, refresh, poll_s=1.0)
        self.flusher = Flusher(self.prober, self.keys, count=2, wait_s=0.2, late_s=LATE_S)
        self.ticker = Ticker(self.prober, after=self.flusher.look)
        self.heartbeat = Heartbeat(self.prober, self.ticker, partitions=(0, 1), version="0.1.0")

    def clock(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass, in process and on the bus."""
        end = self.now + seconds
        while self.now < end - 1e-9:
            step = min(0.01, end - self.now)
            self.now += step
            self.server.now_s += step
            self.ticker.tick(self.now, late_s=0.0)

    def remove(self, replica_id: ReplicaId) -> None:
        """Take a target off the bus as a controller does."""
        partition = partition_of(replica_id)
        del self.server.sets[self.keys.index(partition)][replica_id]
        del self.server.strings[self.keys.target(replica_id)]
        self.server.versions[partition] += 1

    def watched(self) -> set[ReplicaId]:
        return {check.replica_id for check in self.sweep.scheduler}

    def check(self, number: int) -> Check:
        return next(c for c in self.sweep.scheduler if c.replica_id == replica(number))

    def status(self, number: int) -> ReplicaHealthStatus | None:
        value = self.server.get(self.keys.status(replica(number)))
        return None if value is None else decode_status(value)

    async def polls(self, count: int) -> None:
        for _ in range(count):
            self.now += 1.0
            self.server.now_s += 1.0
            await self.refresher.step()


@pytest.fixture
def rig() -> Rig:
    return Rig()


class TestRefresher:
    async def test_everything_is_read_at_first(self, rig: Rig) -> None:
        for number in range(20):
            rig.server.put_target(target(number))
        assert not rig.refresher.loaded.is_set()
        await rig.refresher.step()
        assert rig.watched() == {replica(number) for number in range(20)}
        assert rig.refresher.loaded.is_set()

    async def test_a_new_target_is_watched_at_the_next_poll(self, rig: Rig) -> None:
        await rig.refresher.step()
        rig.server.put_target(target(1))
        await rig.refresher.step()
        assert rig.watched() == {replica(1)}

    async def test_a_removed_target_is_dropped_at_the_next_poll(self, rig: Rig) -> None:
        rig.server.put_target(target(1))
        await rig.refresher.step()
        rig.remove(replica(1))
        await rig.refresher.step()
        assert rig.watched() == set()

    async def test_an_unannounced_change_is_found_within_a_round(self, rig: Rig) -> None:
        rig.server.put_target(target(1))
        await rig.refresher.step()
        rig.server.set(rig.keys.target(replica(1)), encode(target(1, inference_port=9000)))
        await rig.polls(FULL_ROUND)
        assert rig.check(1).target.inference_port == 9000

    async def test_an_expired_target_is_dropped_within_a_round(self, rig: Rig) -> None:
        rig.server.put_target(target(1))
        await rig.refresher.step()
        rig.server.now_s += TARGET_TTL_S
        await rig.polls(FULL_ROUND)
        assert rig.watched() == set()

    async def test_a_new_target_takes_over_the_streak_on_the_bus(self, rig: Rig) -> None:
        """R-62."""
        seed = status(1, consecutive_successes=7, seq=41, last_check=rig.server.now_s - 2)
        rig.server.set(rig.keys.status(replica(1)), encode(seed))
        rig.server.put_target(target(1))
        await rig.refresher.step()
        assert rig.check(1).streak.healthy
        assert rig.check(1).streak.consecutive_successes == 7
        assert rig.check(1).seq == 41

    async def test_an_unusable_target_costs_its_neighbours_nothing(self, rig: Rig) -> None:
        rig.server.put_target(target(1))
        rig.server.put_target(target(2))
        rig.server.put_target(target(3, scheme="https"))
        rig.server.set(rig.keys.target(replica(2)), b"{")
        await rig.refresher.step()
        assert rig.watched() == {replica(1)}
        assert rig.ledger.rejected == {"malformed": 1, "unsupported_check": 1}

    async def test_an_unusable_target_is_logged_once_an_hour(self, rig: Rig) -> None:
        rig.server.put_target(target(2))
        rig.server.set(rig.keys.target(replica(2)), b"{")
        with structlog.testing.capture_logs() as logs:
            await rig.polls(2 * FULL_ROUND)
            assert len(logs) == 1
            assert logs[0]["event"] == "target_rejected"
            assert logs[0]["replica"] == replica(2)
            rig.now += REJECTED_LOG_PERIOD_S
            await rig.polls(FULL_ROUND)
        assert len(logs) == 2
        assert rig.ledger.rejected["malformed"] > 2

    async def test_while_the_bus_is_away_targets_outlive_their_time(self, rig: Rig) -> None:
        """S17."""
        rig.server.put_target(target(1))
        await rig.refresher.step()
        rig.server.away = True
        rig.now += 2 * TARGET_TTL_S
        with pytest.raises(BusUnreachable):
            await rig.refresher.step()
        assert rig.watched() == {replica(1)}
        assert rig.ledger.bus_errors == 1
        assert not rig.life.up

    async def test_each_poll_reads_about_as_much(self, rig: Rig) -> None:
        """S18."""
        await rig.refresher.step()
        before = rig.server.round_trips
        await rig.polls(FULL_ROUND)
        assert rig.server.round_trips - before == 2 * FULL_ROUND


class TestAmnesia:
    """S4: a bus that comes back empty takes no target from us."""

    async def test_targets_stay_when_the_bus_comes_back_empty(self, rig: Rig) -> None:
        rig.server.put_target(target(1))
        rig.server.set(rig.keys.epoch, b"first")
        await rig.refresher.step()
        rig.server.forget_everything()
        await rig.polls(5 * FULL_ROUND)
        assert rig.watched() == {replica(1)}

    async def test_targets_stay_without_an_epoch_when_versions_fall(self, rig: Rig) -> None:
        rig.server.put_target(target(1))
        await rig.refresher.step()
        rig.server.forget_everything()
        await rig.polls(FULL_ROUND)
        assert rig.watched() == {replica(1)}

    async def test_a_partition_filled_again_loses_none_until_the_grace_is_over(
        self, rig: Rig
    ) -> None:
        first, second = target(1), target(2)
        rig.server.put_target(first)
        rig.server.put_target(second)
        rig.server.set(rig.keys.epoch, b"first")
        await rig.refresher.step()
        rig.server.forget_everything()
        rig.server.set(rig.keys.epoch, b"second")
        for partition in range(PARTITIONS):
            rig.server.versions[partition] = 1
        rig.server.put_target(first)
        await rig.polls(int(AMNESIA_GRACE_S))
        assert rig.watched() == {replica(1), replica(2)}
        await rig.polls(FULL_ROUND + 1)
        assert rig.watched() == {replica(1)}

    async def test_a_partition_nobody_fills_is_given_up_after_an_hour(self, rig: Rig) -> None:
        rig.server.put_target(target(1))
        await rig.refresher.step()
        rig.server.forget_everything()
        await rig.refresher.step()
        rig.now += TARGET_TTL_S
        await rig.polls(FULL_ROUND)
        assert rig.watched() == set()

    async def test_it_is_said_once(self, rig: Rig) -> None:
        rig.server.put_target(target(1))
        await rig.refresher.step()
        rig.server.forget_everything()
        with structlog.testing.capture_logs() as logs:
            await rig.polls(3)
        assert [entry["event"] for entry in logs] == ["bus_lost_memory"]


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


def test_a_poll_reads_partitions_in_rotation() -> None:
    refresh = Refresh(range(PARTITIONS), polls_per_round=30, admit=admit, ledger=Ledger())
    poll = Poll(versions={}, epoch=None, time_s=0.0)
    for partition in refresh.wanted(poll, 0.0):
        refresh.took(partition, [], poll)
    rounds = [refresh.wanted(poll, float(n)) for n in range(30)]
    assert {partition for wanted in rounds for partition in wanted} == set(range(PARTITIONS))
    assert {len(wanted) for wanted in rounds} == {3}


async def until(condition: Callable[[], bool], *, within_s: float = 5.0) -> None:
    """Give way to other tasks until `condition` holds."""
    with anyio.fail_after(within_s):
        while not condition():  # noqa: ASYNC110 - the condition is somebody else's plain number
            await anyio.sleep(0.001)
