"""Rollouts as tables: of a phase's rules the first that applies decides.

A strategy is two lists of rules, forward and back. A rule has a name, which history, `rollout
watch` and the diagrams show, a condition over one `Cycle`, and what follows from it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from controller.model import Decision, Policy, SubStep
from controller.rollout.counting import Bounds
from controller.rollout.cycle import Cycle


class Ending(StrEnum):
    """Where a rollout is left to; for the diagrams."""

    PROMOTED = "promoted"
    GIVEN_UP = "given up"
    DESTROYED = "destroying"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """If this, then that."""

    name: str
    says: str
    """What it does, in half a sentence."""
    when: Callable[[Cycle], bool]
    then: Callable[[Cycle], Decision]
    to: SubStep | Ending | None = None
    """The phase or end that it leads to; None: it stays where it is."""
    phases: frozenset[SubStep] = frozenset()
    """Those in which it can apply; empty: in every phase of its list."""
    left_ms: Callable[[Cycle], int] | None = None
    """How much longer it applies, for one that waits for a moment."""
    asks: str = ""
    """The verb of `fleetpulse rollout` that it waits for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Strategy:
    """How a deployment moves from one revision to the next."""

    name: str
    says: str
    bounds: Callable[[Policy, int], Bounds]
    """How far the deployment may stray from its target count, by policy."""
    forward: Sequence[Rule]
    back: Sequence[Rule]
    phases: Sequence[SubStep]
    """Those of the way forward, in order."""
    serves_at_once: bool
    """Whether a new replica gets traffic as soon as it is ready (R-33)."""
    complaint: Callable[[Policy], str]
    """What of a policy makes no sense with it, and the remedy; empty: nothing."""


def decide(rules: Sequence[Rule], cycle: Cycle) -> Decision:
    """Return what the first rule that applies decides, under its name."""
    rule = first(rules, cycle)
    return named(rule.then(cycle), rule.name)


def first(rules: Sequence[Rule], cycle: Cycle) -> Rule:
    """Return the first rule that applies.

    The last rule of every list always applies: a state without an exit does not exist.
    """
    here = cycle.deployment.sub_step
    for rule in rules:
        if rule.phases and here is not None and here not in rule.phases:
            continue
        if rule.when(cycle):
            return rule
    raise AssertionError(f"no rule applies to {cycle.deployment.name!r}: {cycle.state}")


def named(decision: Decision, rule: str) -> Decision:
    """Return a decision that bears the name of who made it."""
    change = decision.change
    return replace(
        decision,
        change=None if change is None else replace(change, rule=rule),
        notes=tuple(replace(note, rule=rule) for note in decision.notes),
    )
