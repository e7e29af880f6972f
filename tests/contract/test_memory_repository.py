"""The simulator's database: what the contract suite says of the real one holds for it, too.

Every test of the suites below that needs no more than the repository, a deployment and a term of
leadership runs here once more, on rows in memory.
"""

import inspect
from types import ModuleType
from typing import Any, Final

import pytest

from controller.model import Deployment, Policy
from controller.simulate.repository import MemoryRepository
from controller.simulate.rows import Rows
from controller.simulate.verbs import MemoryVerbs
from tests.contract import (
    test_decisions,
    test_drain,
    test_evictions,
    test_history,
    test_holds,
    test_publishing,
    test_repository,
)
from tests.fakes.database import SPEC

SUITES: Final = (
    test_repository,
    test_decisions,
    test_drain,
    test_evictions,
    test_history,
    test_holds,
    test_publishing,
)
GIVEN: Final = {"repository", "deployment", "epoch"}
AT_LEAST: Final = 25
"""So many of them, counted when this was written: a suite that is renamed is noticed."""


def _fits(test: Any) -> bool:  # noqa: ANN401 - any test function
    wanted = set(inspect.signature(test).parameters)
    marks = getattr(test, "pytestmark", ())
    given = {
        name
        for mark in marks
        if mark.name == "parametrize"
        for name in (mark.args[0].split(",") if isinstance(mark.args[0], str) else mark.args[0])
    }
    return wanted - {name.strip() for name in given} <= GIVEN


def _those_of(suite: ModuleType) -> dict[str, Any]:
    prefix = suite.__name__.rpartition(".")[2]
    return {
        f"{prefix}__{name.removeprefix('test_')}": test
        for name, test in vars(suite).items()
        if name.startswith("test_") and inspect.iscoroutinefunction(test) and _fits(test)
    }


BORROWED: Final = {name: test for suite in SUITES for name, test in _those_of(suite).items()}
globals().update(BORROWED)


class Clock:
    """Runs by a millisecond with each look."""

    def __init__(self) -> None:
        self.now_ms = 1_800_000_000_000

    def __call__(self) -> int:
        self.now_ms += 1
        return self.now_ms


@pytest.fixture
def rows() -> Rows:
    return Rows(Clock())


@pytest.fixture
def repository(rows: Rows) -> MemoryRepository:
    return MemoryRepository(rows)


@pytest.fixture
def epoch(rows: Rows) -> int:
    rows.lease.epoch, rows.lease.expires_at_ms = 1, rows.now_ms() + 3_600_000
    return 1


@pytest.fixture
def deployment(rows: Rows) -> Deployment:
    """A deployment called demo whose revision 1 is on its way."""
    count = iter(range(1, 100))
    verbs = MemoryVerbs(rows, lambda: f"10000000-0000-4000-8000-{next(count):012x}")
    verbs.apply("demo", replicas=3, policy=Policy())
    verbs.activate("demo", verbs.add_revision("demo", SPEC))
    made = rows.deployment("demo")
    assert made is not None
    return made


def test_enough_of_the_suites_fits() -> None:
    assert len(BORROWED) >= AT_LEAST, sorted(BORROWED)
