"""What an explanation is: facts for programs, and the same facts in sentences for people.

Built by `controller.route.explain` and `controller.rollout.explain`, shown by the command line and
the API in the same words. Whoever reads it may just have been woken: one fact a line, the number
and its limit side by side, and last what happens next.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol

from controller.wording import ago, one_line, span


class Topic(StrEnum):
    """What a line is about; the lines stand in this order."""

    STATE = "state"
    """Where it stands, and since when."""
    PROBE = "probe"
    """What was seen last, or why nothing is seen."""
    COUNT = "count"
    """A counter beside its threshold."""
    RULE = "rule"
    """What brought it here, with its numbers."""
    TRIED = "tried"
    """What was tried since, without effect."""
    HELD = "held"
    """What keeps the next step from happening, and what that waits for."""
    NEXT = "next"
    """What happens next, and when at the earliest."""
    NOTE = "note"
    """What is not told, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clockwork:
    """How often the controller looks, and how long it waits."""

    period_s: Mapping[str, float]
    """By handler: the longest time between two runs."""
    starting_timeout_s: float
    unregister_timeout_s: float
    termination_grace_s: float


class Happened(Protocol):
    """One row of history, as far as it is told."""

    @property
    def category(self) -> str: ...  # noqa: D102 - as in the history
    @property
    def from_state(self) -> str: ...  # noqa: D102
    @property
    def to_state(self) -> str: ...  # noqa: D102
    @property
    def result(self) -> str: ...  # noqa: D102
    @property
    def error_code(self) -> str: ...  # noqa: D102
    @property
    def rule(self) -> str | None: ...  # noqa: D102
    @property
    def message(self) -> str: ...  # noqa: D102
    @property
    def attempts(self) -> int: ...  # noqa: D102
    @property
    def updated_at_ms(self) -> int: ...  # noqa: D102


@dataclass(frozen=True, slots=True, kw_only=True)
class LastProbe:
    """The newest probe on the bus."""

    outcome: str
    reason: str
    sentence: str
    http_status: int
    latency_ms: float
    phases_ms: dict[str, float]
    """Those that happened."""
    age_s: float
    prober: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """A number, and the one that changes something."""

    name: str
    value: float
    limit: float
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A row of history that tells why."""

    category: str
    rule: str | None
    """Of a rollout; None: none of them decided it."""
    message: str
    error_code: str
    result: str
    attempts: int
    from_state: str
    to_state: str
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """Something that keeps the next step from happening."""

    name: str
    text: str
    waits_for: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Something that may happen next."""

    text: str
    within_s: float | None = None
    """How long it takes at the earliest; None: nobody can tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One sentence."""

    topic: Topic
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Why a route or deployment is where it is, and what comes next."""

    kind: str
    """route or deployment."""
    id: str
    deployment: str
    title: str
    state: str
    since_ms: int
    now_ms: int
    probe: LastProbe | None = None
    unseen: str = ""
    """Why there is no probe to tell of; empty where there is one, or none is due."""
    counts: tuple[Count, ...] = ()
    rule: Rule | None = None
    tried: Rule | None = None
    gates: tuple[Gate, ...] = ()
    next: tuple[Step, ...] = ()
    lines: tuple[Line, ...] = ()
    """All of it in words."""

    @property
    def text(self) -> str:
        """Return it as people read it."""
        width = max(map(len, Topic))
        told = (f"  {line.topic.upper():<{width}}  {line.text}" for line in self.lines)
        return "\n".join((self.title, *told))


def in_words(
    facts: Explanation, *, where: str, seen: Iterable[str] = (), notes: Iterable[str] = ()
) -> Explanation:
    """Return the facts with their sentences, in the order of the topics.

    `where` ends the sentence of the state; `seen` is told of probes.
    """

    def told() -> Iterator[tuple[Topic, str]]:
        stay = span((facts.now_ms - facts.since_ms) / 1000)
        yield Topic.STATE, f"{facts.state}, for {stay}{where}"
        yield from ((Topic.PROBE, text) for text in seen)
        yield from ((Topic.COUNT, count.text) for count in facts.counts)
        if facts.rule is not None:
            yield Topic.RULE, _rule(facts.rule, facts.now_ms)
        if facts.tried is not None:
            yield Topic.TRIED, _rule(facts.tried, facts.now_ms)
        for gate in facts.gates:
            yield Topic.HELD, f"{gate.name}: {gate.text}; waits for {gate.waits_for}"
        yield from ((Topic.NEXT, step.text) for step in facts.next)
        yield from ((Topic.NOTE, text) for text in notes)

    lines = tuple(Line(topic=topic, text=one_line(text)) for topic, text in told())
    return replace(facts, lines=lines)


def _rule(rule: Rule, now_ms: int) -> str:
    times = f", {rule.attempts} times" if rule.attempts > 1 else ""
    result = "" if rule.result == "success" else f" ({rule.result}{times})"
    code = f" [{rule.error_code}]" if rule.error_code else ""
    who = rule.category if rule.rule is None else f"{rule.category}/{rule.rule}"
    return f"{who}{result}, {ago(now_ms - rule.at_ms)}: {rule.message}{code}"


def rule_of(happened: Happened) -> Rule:
    """Return a row of history as a fact."""
    return Rule(
        category=happened.category,
        rule=happened.rule,
        message=happened.message,
        error_code=happened.error_code,
        result=happened.result,
        attempts=happened.attempts,
        from_state=happened.from_state,
        to_state=happened.to_state,
        at_ms=happened.updated_at_ms,
    )


def newest_of(history: Iterable[Happened]) -> tuple[Rule | None, Rule | None]:
    """Return the newest change, and the newest attempt that came after it and changed nothing.

    `history` begins with the newest row.
    """
    tried: Rule | None = None
    for happened in history:
        if happened.from_state != happened.to_state:
            return rule_of(happened), tried
        tried = tried or rule_of(happened)
    return None, tried


def change_to(state: str, history: Iterable[Happened]) -> Rule | None:
    """Return the newest change that led into `state`."""
    found = (
        happened
        for happened in history
        if state in happened.to_state.split() and state not in happened.from_state.split()
    )
    return next(map(rule_of, found), None)
