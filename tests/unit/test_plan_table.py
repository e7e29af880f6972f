"""A plan as a person reads it; the one in the docs is what is printed today."""

from pathlib import Path

import pytest

from controller.cli import plan as command
from controller.model import Policy
from controller.rollout.plan import Timings, plan
from controller.rollout.planned import RolloutPlan
from tests.fakes.nouns import NEW, a_deployment, fleet

DOCS = Path(__file__).parents[2] / "docs"


def planned(policy: Policy, *, replicas: int = 4) -> RolloutPlan:
    deployment = a_deployment(name="chat", replicas=replicas, policy=policy)
    timings = Timings(starts_in_s=300, grace_s=30, period_s=30)
    return plan(deployment, NEW, routes=fleet(4), timings=timings)


def test_plan_in_the_docs_is_what_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    command.show_plan(planned(Policy(surge="50%")))
    assert capsys.readouterr().out in (DOCS / "lifecycle.md").read_text(encoding="utf-8")


def test_deadlock_in_the_docs_is_what_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    command.show_plan(planned(Policy(surge=1, capacity=4)))
    assert capsys.readouterr().out in (DOCS / "commands.md").read_text(encoding="utf-8")


def test_operator_and_what_stays_afterwards_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    policy = Policy(strategy="blue-green", auto_promote=False, scale_down_delay_s=600)
    command.show_plan(planned(policy))
    out = capsys.readouterr().out
    assert "operator    waits from 6m on for `fleetpulse rollout promote`" in out
    assert "afterwards  the replicas before are kept for 10m" in out


def test_a_plan_for_no_replica_says_what_it_is_worth(capsys: pytest.CaptureFixture[str]) -> None:
    command.show_plan(planned(Policy(), replicas=0))
    assert "from 1; scaled to 0: nothing will be verified\n" in capsys.readouterr().out
