"""Driving one rollout in memory, rule by rule."""

from dataclasses import replace

from controller.model import Decision, Route
from tests.fakes.nouns import NEW, OLD
from tests.fakes.small_world import SmallWorld


def go_on(world: SmallWorld, cycles: int = 1) -> Decision | None:
    """Let every replica take its next step, and the rules decide."""
    decision = None
    for _ in range(cycles):
        decision = world.cycle()
        for route in world.live:
            world.advance(route)
    return decision


def until(world: SmallWorld, rule: str, *, cycles: int = 100) -> Decision:
    """Go on until a rule decides; return its decision."""
    decision = None
    for _ in range(cycles):
        decision = go_on(world)
        assert decision is not None
        if rule in rules(decision):
            return decision
    raise AssertionError(f"{rule} never decided; last {decision}")


def rules(decision: Decision) -> set[str]:
    """Return the names of the rules that a decision bears."""
    named = {note.rule for note in decision.notes}
    return named | ({decision.change.rule} if decision.change else set())


def greens(world: SmallWorld) -> list[Route]:
    """Return the active replicas of the new revision."""
    return [r for r in world.live if r.active and r.revision_id == NEW.id]


def blues(world: SmallWorld) -> list[Route]:
    """Return the active replicas of the old one."""
    return [r for r in world.live if r.active and r.revision_id == OLD.id]


def ask_promotion(world: SmallWorld) -> None:
    """Let an operator promote."""
    rollout = world.deployment.rollout
    assert rollout is not None
    world.deployment = replace(world.deployment, rollout=replace(rollout, promote_asked=True))
