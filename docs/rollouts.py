"""Rollouts as the real rules decide them, for `docs/generate.py`: pictures, rules, traces."""  # noqa: INP001 - a script's other half, not a package

from collections.abc import Sequence

from controller.model import Outcome, Policy
from controller.rollout import diagram
from controller.rollout.counting import tally
from controller.rollout.strategies import STRATEGIES
from controller.rollout.table import Rule
from docs.tables import code, table
from tests.fakes.nouns import NEW
from tests.fakes.small_world import SmallWorld
from tests.fakes.traces import TRACED, live_on, trace


def strategy(name: str, _old: str = "") -> str:
    """Return the picture of one strategy, and its rules of the way forward."""
    chosen = STRATEGIES[name]
    picture = f"```mermaid\n{diagram.mermaid(chosen)}\n```"
    return f"{picture}\n\n{rules(chosen.forward)}"


def rules(listed: Sequence[Rule]) -> str:
    """Return rules in the order they are asked."""
    rows = ([code(name), where, says] for name, where, says in diagram.rows(listed))
    return table(("rule", "asked in", "what it does"), rows)


def rolling_trace() -> str:
    """Return a rolling update of four replicas, step by step, as the real rules decide it."""
    world = SmallWorld(4, Policy(surge=1, unavailable=0))
    rows: list[list[object]] = []
    ended: Outcome | None = None
    while ended is None:
        before = tally(world.live, NEW.id, now_ms=world.now_ms, min_ready_s=0)
        decision = world.cycle()
        assert decision is not None  # noqa: S101 - a rollout in flight always says something
        ended = decision.change.end_rollout if decision.change else None
        steps = {"create": len(decision.create), "drain": len(decision.routes)}
        moved = ", ".join(f"{verb} {n}" for verb, n in steps.items() if n) or "wait"
        does = ended.name if ended else moved
        seen = [before.ready_others, before.ready_wanted, before.ready]
        rows.append([len(rows) + 1, *seen, does, world.active, world.ready])
        for route in world.live:
            live_on(world, route)
    head = ("cycle", "old ready", "new ready", "ready", "decides", "active after", "ready after")
    return table(head, rows)


def rolling_bounds() -> str:
    """Return what rolling updates take, and how far they stray."""
    rows = (
        [
            each.target,
            each.surge,
            each.unavailable,
            each.steps,
            f"{each.lowest_ready} (at least {each.min_avail})",
            f"{each.highest_active} (at most {each.max_total})",
        ]
        for each in (trace(*given) for given in TRACED)
    )
    return table(("D", "surge", "unavailable", "steps", "lowest ready", "highest active"), rows)
