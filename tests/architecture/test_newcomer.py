"""A strategy from the docs, added to a copy of the tree: one file, one line, and it rolls out."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
FILE: Final = "controller/rollout/recreate.py"
REGISTRY: Final = "controller/rollout/strategies.py"
LAST: Final = "        CANARY,\n"
"""The line of the registry below which the new one goes."""
RUN: Final = """
from controller.model import Lifecycle, Outcome, Policy
from controller.rollout import diagram, strategies
from tests.fakes.nouns import NEW, OLD
from tests.fakes.small_world import SmallWorld

policy = Policy(strategy="recreate", max_failed_replicas=0)
strategies.check(policy)
world = SmallWorld(3, policy)
world.settle()
assert (world.outcome, world.deployment.current) == (Outcome.PROMOTED, NEW)
assert (world.ready, world.active) == (3, 3)
assert world.mutating_cycles == 2

def never(route):
    world.fail(route) if route.revision_id == NEW.id else world.advance(route)

world = SmallWorld(3, policy)
world.settle(never)
assert (world.deployment.lifecycle, world.deployment.current) == (Lifecycle.READY, OLD)
print(diagram.mermaid(strategies.strategy_of(policy)))
"""


def section() -> str:
    """Return what the architecture page says of adding a strategy."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    found = re.search(
        r"^\*\*A strategy\.\*\*.*?(?=^\*\*A command\.)", page, re.DOTALL | re.MULTILINE
    )
    assert found is not None
    return found[0]


def blocks() -> list[str]:
    return re.findall(r"^```(?:python|text)\n(.*?)^```", section(), re.DOTALL | re.MULTILINE)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The tree as a newcomer has it, with what the docs tell them to add."""
    for package in ("probe", "controller"):
        shutil.copytree(
            ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    shutil.copy2(ROOT / "pyproject.toml", tmp_path)
    file, line = blocks()
    (tmp_path / FILE).write_text(file, encoding="utf-8")
    registry = tmp_path / REGISTRY
    known = registry.read_text(encoding="utf-8")
    assert LAST in known
    imported = "from controller.rollout.recreate import RECREATE\n"
    before = "from controller.rollout.rolling import"
    known = known.replace(before, imported + before).replace(LAST, LAST + line)
    registry.write_text(known, encoding="utf-8")
    return tmp_path


def test_a_strategy_from_the_docs_rolls_out_and_rolls_back(copy: Path) -> None:
    """R-22, R-27: nobody else has to know of it."""
    ran = run(copy, sys.executable, "-c", RUN)
    assert "progressing --> rolling_back: all_failed" in ran
    assert "progressing --> [*]: promote (promoted)" in ran


@pytest.mark.parametrize("command", ["lint-imports --no-logo --cache-dir grimp", "ruff check"])
def test_a_strategy_from_the_docs_is_as_tidy_as_ours(copy: Path, command: str) -> None:
    program, *arguments = command.split()
    files = [FILE, REGISTRY] if program == "ruff" else []
    run(copy, str(Path(sys.executable).with_name(program)), *arguments, *files)


def test_the_docs_name_one_file_and_one_line() -> None:
    assert re.findall(r"`(controller/[\w/]+\.py)`", section()) == [FILE, REGISTRY]
    file, line = blocks()
    assert (file.count("Strategy("), line.strip()) == (1, "RECREATE,")


def run(copy: Path, *command: str) -> str:
    """Run a program in the copy, whose own packages come first; return what it printed."""
    ended = subprocess.run(
        command,
        cwd=copy,
        env=os.environ | {"PYTHONPATH": f"{copy}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout
