"""Words stay in their rooms: what is shared names no strategy, and every handler is tested."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from controller.reconcile.schedules import WAKES
from controller.rollout.strategies import STRATEGIES
from tests.architecture.tree import modules, tree

SHARED: Final = (
    Path("controller/model.py"),
    Path("controller/db/tables.py"),
    *modules("controller/reconcile"),
)
OF_STRATEGIES: Final = re.compile("|".join({*STRATEGIES, "blue", "green", "canary"}), re.IGNORECASE)
TURNING_BACK: Final = re.compile(r"rolling_?back", re.IGNORECASE)
"""A direction every strategy has, and not the strategy of that name."""

STATES: Final = {"Strategy", "Lifecycle", "SubStep", "RouteStatus", "Stage"}


def defined(module: ast.Module) -> Iterator[str]:
    """Yield the names a module gives: classes, functions, arguments, fields, members, columns."""
    for node in ast.walk(module):
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
                yield name
            case ast.AsyncFunctionDef(name=name) | ast.arg(arg=name):
                yield name
            case ast.Name(id=name, ctx=ast.Store()):
                yield name
            case ast.Call(func=ast.Name(id="Column"), args=[ast.Constant(value=str(name)), *_]):
                yield name
            case _:
                pass


def test_shared_types_carry_no_strategys_name() -> None:
    """R-22"""
    names = Counter(name for path in SHARED for name in defined(tree(path)))
    assert len(names) > 100
    assert {name for name in names if OF_STRATEGIES.search(TURNING_BACK.sub("", name))} == set()


def test_the_coordinator_knows_no_strategy_and_no_state_by_name() -> None:
    """R-27"""
    for name in ("runner", "route_cycle", "deployment_cycle", "handler"):
        path = Path(f"controller/reconcile/{name}.py")
        used = {node.id for node in ast.walk(tree(path)) if isinstance(node, ast.Name)}
        assert used & STATES == set()


def test_a_rollout_does_not_speak_of_scaling_nor_scaling_of_rollouts() -> None:
    """R-28"""
    for path in modules("controller/rollout"):
        foreign = r"rollout|promot" if path.stem == "scale" else r"scal(?:e|ing)"
        names = {name for name in defined(tree(path)) if re.search(foreign, name)}
        assert names == set(), path


def test_every_handler_has_a_test_of_its_own() -> None:
    """R-23"""
    classes = {
        node.name: path
        for path in modules("controller/reconcile")
        for node in tree(path).body
        if isinstance(node, ast.ClassDef)
        and any(
            isinstance(line, ast.Assign)
            and isinstance(line.targets[0], ast.Name)
            and line.targets[0].id == "name"
            for line in node.body
        )
    }
    assert len(classes) == len(WAKES)
    tested = {
        alias.name
        for path in modules("tests/unit")
        for node in tree(path).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert classes.keys() - tested == set()
