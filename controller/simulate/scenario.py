"""What a scenario file says: the fleet at the start, what happens to it when, what is expected.

Read by `fleetpulse simulate` and made up by `chance`. Only values, and their bounds.
"""

import tomllib
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec

from controller.errors import ControllerError, InvalidInput
from controller.model import HealthCheck, Policy
from controller.rollout import strategies

_Seconds = Annotated[float, msgspec.Meta(ge=0, le=86_400)]
_Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
_Count = Annotated[int, msgspec.Meta(ge=1, le=100)]
_Name = Annotated[str, msgspec.Meta(pattern=r"\A[a-z][a-z0-9-]{0,31}\Z")]
SCENARIO_MAX_BYTES: Final = 1_048_576


class Replicas(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the replicas of one revision behave."""

    load_s: _Seconds = 10.0
    """From the start of a session to its first good answer."""
    load_spread_s: _Seconds = 0.0
    """Up to so much longer, by chance."""
    refused: _Share = 0.0
    """The share that the provisioner refuses to start."""
    crashing: _Share = 0.0
    """The share that ends while it loads."""
    broken: bool = False
    """None of them ever answers well."""
    lives_s: _Seconds = 0.0
    """How long one lives at the mean, by chance; 0: for ever."""


class Do(StrEnum):
    """What can happen."""

    START = "start"
    APPLY = "apply"
    SCALE = "scale"
    PAUSE = "pause"
    RESUME = "resume"
    PROMOTE = "promote"
    ABORT = "abort"
    RETRY = "retry"
    ROLLBACK = "rollback"
    DELETE = "delete"
    KILL = "kill"
    HANG = "hang"
    FLAP = "flap"
    LOSE = "lose"
    FLUSH = "flush"
    ISOLATE = "isolate"
    CRASH = "crash"
    FREEZE = "freeze"
    CLONE = "clone"
    STEP_CLOCK = "step_clock"


class What(StrEnum):
    """What can be lost for a time, and whose clock can be stepped."""

    BUS = "bus"
    DATABASE = "database"
    PROBERS = "probers"
    PROBER = "prober"
    PROVISIONER = "provisioner"
    PROXY = "proxy"
    CONTROLLER = "controller"


class Step(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One line: something happens at a moment."""

    at_s: _Seconds
    do: Do
    of: str = ""
    """Which deployment."""
    what: What | None = None
    """For `lose` and `step_clock`."""
    count: _Count = 1
    """How many replicas."""
    for_s: _Seconds = 0.0
    """For how long."""
    by_s: Annotated[float, msgspec.Meta(ge=-86_400, le=86_400)] = 0.0
    """How far a clock is stepped."""
    share: _Share = 1.0
    """How many of a hundred writes a proxy fails at, as a share."""
    replicas: Annotated[int, msgspec.Meta(ge=0, le=100)] | None = None
    """The count, for `scale` and `apply`."""
    behaviour: Replicas = Replicas()
    """Of the new revision, for `start`."""
    policy: Policy | None = None
    """For `apply`."""

    @property
    def is_fault(self) -> bool:
        """Tell whether nobody asked for it."""
        return self.do not in _VERBS


_VERBS: Final = (
    Do.START,
    Do.APPLY,
    Do.SCALE,
    Do.PAUSE,
    Do.RESUME,
    Do.PROMOTE,
    Do.ABORT,
    Do.RETRY,
    Do.ROLLBACK,
    Do.DELETE,
)
_OF: Final = (*_VERBS, Do.KILL, Do.HANG, Do.FLAP)


class Fleet(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One deployment as it is first applied."""

    replicas: _Count = 3
    policy: Policy = Policy()
    health_check: HealthCheck = HealthCheck(path="/health", max_retries=3)
    behaviour: Replicas = Replicas()
    """Of the first revision."""


class Ending(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one deployment is expected to come to."""

    outcomes: tuple[str, ...] | None = None
    """Of its rollouts, the oldest first."""
    revision: int | None = None
    """The current one at the end; 0 for none."""
    ready: int | None = None
    """Ready replicas of it at the end."""
    lowest_ready: int | None = None
    """Never fewer ready replicas than this, once it was complete."""
    highest_active: int | None = None
    """Never more active replicas than this."""
    rules: tuple[str, ...] = ()
    """Rules that decided at least once."""


class Expected(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a run of the scenario has to come to; invariants are checked in any case."""

    deployments: dict[_Name, Ending] = {}
    evicted: int | None = None
    """Replicas taken out for their health."""
    held: bool | None = None
    """Whether HOLD was seen."""
    terms: int | None = None
    """Terms of leadership."""


class Scenario(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A whole story."""

    title: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    duration_s: Annotated[float, msgspec.Meta(ge=10, le=86_400)] = 1800.0
    controllers: _Count = 1
    probers: _Count = 2
    converges: bool = True
    """Whether all shall be well at the end: every deployment complete, nothing else left."""
    deployments: dict[_Name, Fleet] = {}
    steps: tuple[Step, ...] = ()
    expect: Expected = Expected()


def load(path: Path) -> Scenario:
    """Read a scenario file.

    Raises:
        InvalidInput: if it cannot be read, or says what cannot be.
    """
    try:
        if path.stat().st_size > SCENARIO_MAX_BYTES:
            raise InvalidInput(f"{path}: a scenario has at most {SCENARIO_MAX_BYTES} bytes")
        document = tomllib.loads(path.read_text())
    except OSError as error:
        raise InvalidInput(
            f"{path}: {error.strerror}; name a scenario file, or `random` for one by the seed"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path} is no TOML: {error}") from error
    return of_document(document, shown=str(path))


def of_document(document: dict[str, Any], *, shown: str) -> Scenario:
    """Check what a scenario says.

    Raises:
        InvalidInput: if it says what cannot be.
    """
    try:
        scenario = msgspec.convert(document, Scenario)
        policies = [fleet.policy for fleet in scenario.deployments.values()]
        for policy in policies + [step.policy for step in scenario.steps if step.policy]:
            strategies.check(policy)
    except (msgspec.ValidationError, ControllerError) as error:
        raise InvalidInput(f"{shown}: {error}") from error
    for place, step in enumerate(scenario.steps, start=1):
        _check(step, scenario, shown=f"{shown}: step {place} ({step.do})")
    return scenario


def _check(step: Step, scenario: Scenario, *, shown: str) -> None:
    if step.do in _OF and step.of not in scenario.deployments:
        known = ", ".join(scenario.deployments) or "none"
        raise InvalidInput(f"{shown}: of = {step.of!r} is no deployment; there are: {known}")
    if step.do in (Do.LOSE, Do.STEP_CLOCK) and step.what is None:
        raise InvalidInput(f"{shown}: say what, for example what = 'bus'")
    if step.do is Do.STEP_CLOCK and step.what not in (What.BUS, What.DATABASE, What.CONTROLLER):
        raise InvalidInput(
            f"{shown}: what = {step.what!r} has no clock; bus, database or controller"
        )
    if step.do is Do.SCALE and step.replicas is None:
        raise InvalidInput(f"{shown}: say replicas, the count to scale to")
    if step.at_s > scenario.duration_s:
        raise InvalidInput(
            f"{shown}: at_s = {step.at_s:g} is after the end, duration_s = {scenario.duration_s:g}"
        )
