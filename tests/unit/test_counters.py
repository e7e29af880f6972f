"""What the sweep counts is what a walk over its checks would find."""

import pytest

from probe.health import Outcome, ended
from probe.reasons import OutcomeKind, Reason
from probe.schedule.counters import Standing, standing_of
from probe.schedule.scheduler import Check, Scheduler
from probe.sweep import Sweep
from probe.wire import ReplicaProbeTarget
from tests.fakes.entries import status, target
from tests.fakes.wire import PASSED, REFUSED, FakeWire

LOCAL = ended(Reason.LOCAL_FDS)


class Rig:
    def __init__(self, *, max_in_flight: int = 100) -> None:
        self.now = 100.0
        self.wire = FakeWire()
        self.sweep = Sweep(
            Scheduler(), self.wire, clock=lambda: self.now, max_in_flight=max_in_flight
        )

    def watch(self, *targets: ReplicaProbeTarget, **seeds: object) -> None:
        self.sweep.replace(0, targets, now=self.now, **seeds)  # type: ignore[arg-type] # as given

    def advance(self, seconds: float) -> None:
        for _ in range(round(seconds / 0.01)):
            self.now += 0.01
            self.sweep.tick(self.now)

    def agrees(self) -> bool:
        """Compare the counts with the checks themselves."""
        walked: dict[str, list[int]] = {}
        for check in self.sweep.scheduler:
            counts = walked.setdefault(check.deployment, [0] * len(Standing))
            counts[standing_of(check)] += 1
        counted = {n: r.standings for n, r in self.sweep.counters.deployments.items()}
        return counted == walked


@pytest.fixture
def rig() -> Rig:
    return Rig()


@pytest.mark.parametrize("threshold", [1, 3])
@pytest.mark.parametrize("outcome", [PASSED, REFUSED, LOCAL])
def test_standings_follow_every_outcome(rig: Rig, outcome: Outcome, threshold: int) -> None:
    fields = {"interval_s": 1.0, "max_retries": threshold, "healthy_threshold": threshold}
    rig.watch(*(target(n, deployment=f"d{n % 2}", **fields) for n in range(4)))
    assert rig.agrees()
    for each in (LOCAL, outcome, outcome, outcome, REFUSED, PASSED, outcome):
        rig.wire.answers_at_once = each
        rig.advance(1.0)
        assert rig.agrees()


def test_standings_survive_a_change_and_end_with_their_target(rig: Rig) -> None:
    """R-67."""
    rig.wire.answers_at_once = PASSED
    rig.watch(target(1, interval_s=1.0), target(2, interval_s=1.0))
    rig.advance(1.1)
    rig.watch(target(1, interval_s=2.0))
    (results,) = rig.sweep.counters.deployments.values()
    assert results.standings[Standing.HEALTHY] == 1
    rig.watch()
    assert not rig.sweep.counters.deployments


def test_a_verdict_taken_over_from_the_bus_counts_at_once(rig: Rig) -> None:
    """R-62."""
    known = status(1, healthy=True, last_check=900.0, changed_at=800.0)
    rig.watch(target(1, interval_s=10.0), bus_now=901.0, seeds={known.replica_id: known})
    (results,) = rig.sweep.counters.deployments.values()
    assert results.standings[Standing.HEALTHY] == 1


def test_a_wait_for_room_is_told_from_a_late_tick() -> None:
    """R-53."""
    rig = Rig(max_in_flight=1)
    rig.watch(*(target(n, interval_s=1.0) for n in range(3)))
    rig.advance(1.2)
    assert rig.sweep.counters.slot_wait.total == 0
    rig.wire.answers_at_once = PASSED
    rig.wire.answer_all()
    rig.advance(0.05)
    waited = rig.sweep.counters.slot_wait
    assert sum(waited.counts) == rig.sweep.counters.started
    assert sum(waited.counts[1:]) == 2
    assert waited.total > 0


def test_while_our_network_is_gone_silence_is_no_evidence(rig: Rig) -> None:
    """R-66."""
    rig.wire.answers_at_once = PASSED
    rig.watch(target(1, interval_s=1.0, max_retries=1))
    rig.advance(1.1)
    rig.sweep.frozen = True
    rig.wire.answers_at_once = REFUSED
    rig.advance(3.0)
    (check,) = rig.sweep.scheduler
    assert check.streak.healthy
    assert check.outcome is not None
    assert check.outcome.reason is Reason.LOCAL_NETWORK
    rig.wire.answers_at_once = ended(Reason.STATUS_UNEXPECTED, http_status=503)
    rig.advance(1.0)
    assert not check.streak.healthy


def test_an_outcome_that_is_not_the_sweep_s_is_told_aside_and_counted_nowhere(rig: Rig) -> None:
    """S7: the prober's probes of itself."""
    told: list[OutcomeKind] = []
    rig.sweep.aside = lambda _check, outcome: told.append(outcome.kind)
    own = Check(target(9))
    rig.wire.start(own, rig.now)
    rig.wire.answer(own, REFUSED)
    assert told == [OutcomeKind.FAILED]
    assert not any(rig.sweep.counters.reasons.values())
    assert rig.sweep.dirty == rig.sweep.in_flight == 0
