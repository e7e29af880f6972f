"""The worked examples in the control plane's arithmetic are true."""

import doctest
from types import ModuleType

import pytest

from controller.definition import explain, health_check, merge
from controller.rollout import bluegreen, counting, cycle, rolling
from controller.route import shed
from controller.route.guard import breakers, budget, causes, clocks, second_source

MODULES = (
    explain,
    health_check,
    merge,
    bluegreen,
    counting,
    cycle,
    rolling,
    shed,
    breakers,
    budget,
    causes,
    clocks,
    second_source,
)


@pytest.mark.parametrize("module", MODULES, ids=lambda m: m.__name__)
def test_worked_examples_hold(module: ModuleType) -> None:
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0
