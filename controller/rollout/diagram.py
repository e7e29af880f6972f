"""A strategy's table as a picture and as a list: the docs are drawn from the rules that decide.

Pure; called by `docs/generate.py`, whose drift check fails when a rule moved and its picture did
not.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from controller.model import SubStep
from controller.rollout.table import Ending, Rule, Strategy

_BEGINS: Final = SubStep.PROVISIONING


def mermaid(strategy: Strategy) -> str:
    """Return the phases and ends of a strategy, and the rules that lead from one to the other."""
    lines = ["stateDiagram-v2", f"    [*] --> {_BEGINS}"]
    lines += [f"    {arrow}" for arrow in dict.fromkeys(_arrows(strategy))]
    return "\n".join(lines)


def _arrows(strategy: Strategy) -> Iterator[str]:
    for rule in strategy.forward:
        for phase in strategy.phases:
            if rule.phases and phase not in rule.phases:
                continue
            yield from _arrow(phase, rule)
    for rule in strategy.back:
        yield from _arrow(SubStep.ROLLING_BACK, rule)


def _arrow(phase: SubStep, rule: Rule) -> Iterator[str]:
    match rule.to:
        case SubStep() if rule.to is not phase:
            yield f"{phase} --> {rule.to}: {rule.name}"
        case Ending():
            yield f"{phase} --> [*]: {rule.name} ({rule.to})"
        case _:
            return


def rows(rules: Sequence[Rule]) -> Iterator[tuple[str, str, str]]:
    """Yield each rule: its name, the phases it is asked in, what it does; in the order asked."""
    for rule in rules:
        where = ", ".join(sorted(phase.value for phase in rule.phases)) or "all"
        yield rule.name, where, rule.says
