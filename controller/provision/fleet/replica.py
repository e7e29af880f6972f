"""The life of one simulated replica: pure, with time as an argument.

`server` does what `moment` says and wakes up when it says. Knows no sockets and no clock.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Annotated, Literal, assert_never

import msgspec

from controller.errors import InvalidInput
from controller.provision.port import SessionState

_Seconds = Annotated[float, msgspec.Meta(ge=0, le=86_400)]
_PREFIX = "SIM_"


class Fault(StrEnum):
    """What can go wrong with a replica."""

    KILL = "kill"
    """Its process ends: connections close, new ones are refused, and it stays so."""
    HANG = "hang"
    """It accepts connections and never answers."""
    FAIL = "fail"
    """It answers 503."""
    FLAP = "flap"
    """It answers 503 for `seconds`, then 200 for as long, and so on."""
    SLOW = "slow"
    """It answers 200, but `seconds` late."""


class Repair(StrEnum):
    """What can be done about it."""

    HEAL = "heal"
    """The injected fault ends; a replica that exited stays so."""
    RESTART = "restart"
    """The process starts anew on the same address and loads again; the fault is gone."""


class Behaviour(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    rename=lambda field: _PREFIX + field.upper(),
):
    """How the replicas of one revision behave: `load_s` is the variable SIM_LOAD_S."""

    refuse: str = ""
    """Not empty: the provisioner refuses to start it, and gives this as the reason."""
    schedule_s: _Seconds = 0.0
    """How long the session is pending, without an address."""
    load_s: _Seconds = 0.5
    """How long the replica loads its model before it serves."""
    loading: Literal["refuse", "unavailable"] = "refuse"
    """Whether nothing listens while it loads, or it answers 503."""
    fault: Fault | None = None
    """What goes wrong with every replica of the revision."""
    fault_after_s: _Seconds = 0.0
    """How long it serves before that."""
    fault_seconds: _Seconds = 1.0
    """Half the period of `flap`, the delay of `slow`."""
    fault_every: Annotated[int, msgspec.Meta(ge=1)] = 1
    """Only every so many-th replica of those started is refused, or has the fault."""
    answer_s: _Seconds = 0.0
    """How long it takes to answer, when all is well."""


def spared(behaviour: Behaviour) -> Behaviour:
    """Return how a replica behaves that nothing befalls.

    >>> spared(Behaviour(refuse="no image", load_s=2.0)) == Behaviour(load_s=2.0)
    True
    """
    return msgspec.structs.replace(behaviour, refuse="", fault=None)


def behaviour_of(environment: Mapping[str, str]) -> Behaviour:
    """Read the `SIM_…` variables of a revision; others are the replica's own and ignored.

    Raises:
        InvalidInput: if a `SIM_…` variable is unknown or its value cannot be.

    >>> behaviour_of({"SIM_LOAD_S": "2.5", "PATH": "/bin"}).load_s
    2.5
    """
    ours = {name: value for name, value in environment.items() if name.startswith(_PREFIX)}
    try:
        return msgspec.convert(ours, Behaviour, strict=False)
    except msgspec.ValidationError as error:
        known = ", ".join(Behaviour.__struct_encode_fields__)
        raise InvalidInput(
            f"the revision's environment: {error}; the simulated fleet knows {known}"
        ) from error


class Manner(StrEnum):
    """How a replica meets a client."""

    REFUSES = "refuses"
    ANSWERS = "answers"
    UNAVAILABLE = "unavailable"
    SILENT = "silent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """What is true of a replica now, and until when."""

    state: SessionState
    manner: Manner
    delay_s: float = 0.0
    """How late it answers."""
    until: float | None = None
    """When this may change by itself; None: never."""
    exit_reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Injected:
    fault: Fault
    at: float
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """One replica since it was accepted; times are seconds of one monotonic clock."""

    behaviour: Behaviour
    loads_at: float
    """When its process starts to load; pending before."""
    injected: _Injected | None = None
    """Takes the place of the behaviour's own fault."""


def born(behaviour: Behaviour, *, now: float) -> Life:
    """Return the life of a replica accepted now."""
    return Life(behaviour=behaviour, loads_at=now + behaviour.schedule_s)


def suffer(life: Life, fault: Fault, *, now: float, seconds: float) -> Life:
    """Return the life in which `fault` strikes now; a replica that exited has none to lose."""
    if moment(life, now).state is SessionState.EXITED:
        return life
    return replace(life, injected=_Injected(fault=fault, at=now, seconds=seconds))


def repair(life: Life, how: Repair, *, now: float) -> Life:
    """Return the repaired life."""
    match how:
        case Repair.HEAL:
            exited = moment(life, now).state is SessionState.EXITED
            return life if exited else replace(life, injected=None)
        case Repair.RESTART:
            # Scheduling happened once; only the process starts anew.
            return Life(behaviour=life.behaviour, loads_at=now)
        case _ as never:
            assert_never(never)


def moment(life: Life, now: float) -> Moment:
    """Tell how the replica stands at `now`."""
    if life.injected is not None and life.injected.fault is Fault.KILL:
        return _exited("killed")
    if now < life.loads_at:
        return Moment(state=SessionState.PENDING, manner=Manner.REFUSES, until=life.loads_at)
    if life.injected is not None:
        return _faulty(life.injected, now)
    return _as_configured(life.behaviour, life.loads_at, now)


def _as_configured(behaviour: Behaviour, loads_at: float, now: float) -> Moment:
    serves_at = loads_at + behaviour.load_s
    if now < serves_at:
        refuses = behaviour.loading == "refuse"
        return _running(Manner.REFUSES if refuses else Manner.UNAVAILABLE, until=serves_at)
    if behaviour.fault is None:
        return _running(Manner.ANSWERS, delay_s=behaviour.answer_s)
    fails_at = serves_at + behaviour.fault_after_s
    if now < fails_at:
        return _running(Manner.ANSWERS, delay_s=behaviour.answer_s, until=fails_at)
    fault = _Injected(fault=behaviour.fault, at=fails_at, seconds=behaviour.fault_seconds)
    return _faulty(fault, now)


def _faulty(injected: _Injected, now: float) -> Moment:
    match injected.fault:
        case Fault.KILL:
            return _exited("exited with status 1")
        case Fault.HANG:
            return _running(Manner.SILENT)
        case Fault.FAIL:
            return _running(Manner.UNAVAILABLE)
        case Fault.SLOW:
            return _running(Manner.ANSWERS, delay_s=injected.seconds)
        case Fault.FLAP:
            # A period of zero would be no time at all in either state.
            half_s = max(injected.seconds, 0.01)
            # The edge itself, rounded down, belongs to the half that begins: without the
            # millionth, `until` could be `now`.
            half = int((now - injected.at) / half_s + 1e-6)
            manner = Manner.ANSWERS if half % 2 else Manner.UNAVAILABLE
            return _running(manner, until=injected.at + (half + 1) * half_s)
        case _ as never:
            assert_never(never)


def _running(manner: Manner, *, delay_s: float = 0.0, until: float | None = None) -> Moment:
    return Moment(state=SessionState.RUNNING, manner=manner, delay_s=delay_s, until=until)


def _exited(reason: str) -> Moment:
    return Moment(state=SessionState.EXITED, manner=Manner.REFUSES, exit_reason=reason)
