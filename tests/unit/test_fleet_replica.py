"""The life of a simulated replica, told at moments of a clock that is only an argument."""

import pytest

from controller.errors import InvalidInput
from controller.provision.fleet.replica import (
    Behaviour,
    Fault,
    Manner,
    Repair,
    behaviour_of,
    born,
    moment,
    repair,
    suffer,
)
from controller.provision.port import SessionState

REFUSES, ANSWERS = Manner.REFUSES, Manner.ANSWERS
UNAVAILABLE, SILENT = Manner.UNAVAILABLE, Manner.SILENT
T = 1000.0


@pytest.mark.parametrize(
    ("after_s", "state", "manner", "until_s"),
    [
        (0.0, SessionState.PENDING, REFUSES, 1.0),
        (0.99, SessionState.PENDING, REFUSES, 1.0),
        (1.0, SessionState.RUNNING, REFUSES, 3.0),
        (2.99, SessionState.RUNNING, REFUSES, 3.0),
        (3.0, SessionState.RUNNING, ANSWERS, None),
        (1e6, SessionState.RUNNING, ANSWERS, None),
    ],
)
def test_a_replica_is_scheduled_then_loads_then_serves(
    after_s: float, state: SessionState, manner: Manner, until_s: float | None
) -> None:
    life = born(Behaviour(schedule_s=1.0, load_s=2.0), now=T)
    now = moment(life, T + after_s)
    assert (now.state, now.manner) == (state, manner)
    assert now.until == (None if until_s is None else T + until_s)


def test_a_replica_may_answer_503_while_it_loads() -> None:
    life = born(Behaviour(load_s=2.0, loading="unavailable"), now=T)
    assert moment(life, T + 1.9).manner is UNAVAILABLE
    assert moment(life, T + 2.0).manner is ANSWERS


@pytest.mark.parametrize(
    ("fault", "state", "manner"),
    [
        (Fault.KILL, SessionState.EXITED, REFUSES),
        (Fault.HANG, SessionState.RUNNING, SILENT),
        (Fault.FAIL, SessionState.RUNNING, UNAVAILABLE),
        (Fault.FLAP, SessionState.RUNNING, UNAVAILABLE),
        (Fault.SLOW, SessionState.RUNNING, ANSWERS),
    ],
)
def test_a_fault_strikes_at_once_when_injected_and_in_time_when_configured(
    fault: Fault, state: SessionState, manner: Manner
) -> None:
    healthy = born(Behaviour(load_s=1.0), now=T)
    struck = moment(suffer(healthy, fault, now=T + 5, seconds=1.0), T + 5)
    assert (struck.state, struck.manner) == (state, manner)

    doomed = born(Behaviour(load_s=1.0, fault=fault, fault_after_s=4.0), now=T)
    assert moment(doomed, T + 4.9).manner is ANSWERS
    assert moment(doomed, T + 4.9).until == T + 5.0
    struck = moment(doomed, T + 5.0)
    assert (struck.state, struck.manner) == (state, manner)


def test_a_slow_replica_answers_late() -> None:
    life = suffer(born(Behaviour(load_s=0), now=T), Fault.SLOW, now=T, seconds=2.5)
    assert moment(life, T + 1).delay_s == 2.5


def test_a_replica_takes_its_time_to_answer_when_all_is_well_too() -> None:
    now = moment(born(Behaviour(load_s=0, answer_s=0.03), now=0), 1)
    assert (now.manner, now.delay_s) == (Manner.ANSWERS, 0.03)


def test_a_flapping_replica_alternates_with_half_its_period() -> None:
    life = suffer(born(Behaviour(load_s=0), now=T), Fault.FLAP, now=T, seconds=2.0)
    at = [moment(life, T + second).manner for second in range(8)]
    assert at == [UNAVAILABLE, UNAVAILABLE, ANSWERS, ANSWERS] * 2
    assert moment(life, T + 3.5).until == T + 4.0


def test_flapping_with_a_period_of_zero_still_takes_time() -> None:
    life = suffer(born(Behaviour(load_s=0), now=T), Fault.FLAP, now=T, seconds=0.0)
    until = moment(life, T).until
    assert until is not None
    assert until > T


def test_a_replica_that_exited_stays_so_until_it_is_restarted() -> None:
    life = suffer(born(Behaviour(load_s=1.0), now=T), Fault.KILL, now=T + 5, seconds=1.0)
    assert moment(life, T + 1e6).exit_reason == "killed"
    assert repair(life, Repair.HEAL, now=T + 6) == life
    assert suffer(life, Fault.HANG, now=T + 6, seconds=1.0) == life
    again = repair(life, Repair.RESTART, now=T + 7)
    assert moment(again, T + 7.5).manner is REFUSES
    assert moment(again, T + 8.0).manner is ANSWERS


def test_a_restart_does_not_wait_to_be_scheduled_again() -> None:
    life = born(Behaviour(schedule_s=60.0, load_s=1.0), now=T)
    again = repair(life, Repair.RESTART, now=T + 100)
    assert moment(again, T + 100).state is SessionState.RUNNING


def test_healing_ends_an_injected_fault() -> None:
    life = suffer(born(Behaviour(load_s=0), now=T), Fault.HANG, now=T, seconds=1.0)
    assert moment(repair(life, Repair.HEAL, now=T + 1), T + 1).manner is ANSWERS


def test_an_injected_fault_takes_the_place_of_the_configured_one() -> None:
    life = born(Behaviour(load_s=0, fault=Fault.FAIL), now=T)
    hung = suffer(life, Fault.HANG, now=T + 1, seconds=1.0)
    assert moment(hung, T + 1).manner is SILENT
    assert moment(repair(hung, Repair.HEAL, now=T + 2), T + 2).manner is UNAVAILABLE


def test_until_is_always_ahead_so_that_a_timer_set_by_it_makes_progress() -> None:
    behaviour = Behaviour(schedule_s=0.3, load_s=0.7, fault=Fault.FLAP, fault_seconds=0.1)
    life, now = born(behaviour, now=T), T
    for _ in range(1000):
        until = moment(life, now).until
        assert until is not None
        assert until > now
        now = until
    assert now < T + 200


def test_a_revision_tells_by_its_environment_how_its_replicas_behave() -> None:
    environment = {"SIM_LOAD_S": "2.5", "SIM_FAULT": "slow", "SIM_FAULT_SECONDS": "3", "HOME": "/"}
    assert behaviour_of(environment) == Behaviour(load_s=2.5, fault=Fault.SLOW, fault_seconds=3)
    assert behaviour_of({}) == Behaviour()


@pytest.mark.parametrize(
    "environment", [{"SIM_LOAD": "1"}, {"SIM_LOAD_S": "soon"}, {"SIM_LOAD_S": "-1"}]
)
def test_a_variable_that_cannot_be_is_refused_by_name(environment: dict[str, str]) -> None:
    with pytest.raises(InvalidInput, match=next(iter(environment))):
        behaviour_of(environment)
