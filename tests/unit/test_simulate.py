"""The simulator: virtual time, the same bytes for a seed, and bugs that it has to find."""

import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any, Final

import msgspec
import pytest

from controller.errors import InvalidInput
from controller.invariants import Invariant
from controller.model import DeploymentId, Traffic
from controller.reconcile.schedules import WAKES
from controller.route import evict, warmup
from controller.route.guard import HoldCause
from controller.simulate.chance import random_scenario
from controller.simulate.kernel import Kernel
from controller.simulate.picture import svg
from controller.simulate.report import Run, run
from controller.simulate.scenario import Scenario, load, of_document
from controller.simulate.world import World

WALK: dict[str, Any] = {
    "title": "a walk",
    "duration_s": 700,
    "deployments": {"chat": {"replicas": 3}},
    "steps": [{"at_s": 200, "do": "start", "of": "chat"}],
}


def scenario(**given: object) -> Scenario:
    return of_document(WALK | given, shown="the test")


def bytes_of(done: Run) -> bytes:
    return msgspec.json.encode((done.report, done.lines)) + svg(done).encode()


def test_a_rollout_without_faults_is_promoted_and_breaks_nothing() -> None:
    done = run(scenario(), seed=1)
    assert done.report.good, done.report
    chat = done.report.deployments["chat"]
    assert (chat.outcomes, chat.revision, chat.ready) == (("promoted", "promoted"), 2, 3)
    assert chat.lowest_ready == 3
    assert {"replace", "promote"} <= chat.rules.keys()


def test_a_seed_twice_gives_the_same_bytes_and_another_seed_does_not() -> None:
    first, again, other = (run(random_scenario(seed), seed=seed) for seed in (7, 7, 8))
    assert bytes_of(first) == bytes_of(again)
    assert bytes_of(first) != bytes_of(other)


def test_what_is_killed_runs_no_further_and_what_is_frozen_later() -> None:
    kernel = Kernel(Random(1))  # noqa: S311 - repeatable on purpose
    seen = list[tuple[str, float]]()

    async def work(name: str) -> None:
        for _ in range(3):
            seen.append((name, kernel.now_s))
            await kernel.sleep(10)

    killed, frozen = kernel.spawn("killed", work("killed")), kernel.spawn("frozen", work("frozen"))
    kernel.run(5)
    killed.kill()
    frozen.frozen_until_s = 25
    kernel.run(100)
    kernel.close()
    assert sorted(seen) == [("frozen", 0), ("frozen", 25), ("frozen", 35), ("killed", 0)]


def test_a_term_has_the_handlers_of_a_real_one_but_for_the_keepers_of_records() -> None:
    world = World(scenario(), seed=0)
    term = world._term(lambda: 0.0)
    names = [handler.name for handler in term.runner._handlers]
    assert set(WAKES) - set(names) == {"audit_history", "prune"}
    assert len(names) == len(set(names))


def test_an_expectation_that_is_not_met_is_told() -> None:
    wanted = {"deployments": {"chat": {"revision": 7, "rules": ["no_such_rule"]}}, "evicted": 4}
    unexpected = run(scenario(expect=wanted), seed=1).report.unexpected
    assert unexpected == (
        "evicted: 0, expected 4",
        "chat: revision is 2, expected 7",
        "chat: the rule no_such_rule never decided",
    )


BLIND_SEEDS: Final = (17, 22)
"""Of the first 120 seeds eight find it, these first."""


class TestPlantedBugs:
    """A simulator that finds nothing proves nothing."""

    def test_eviction_that_ignores_hold_is_found(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """I11"""
        sees = evict.decide

        def deaf(
            *args: Any,  # noqa: ANN401 - passed on
            hold: frozenset[HoldCause],
            held_deployments: frozenset[DeploymentId],
            **given: Any,  # noqa: ANN401 - passed on
        ) -> evict.Evictions:
            del hold, held_deployments
            snapshot, view = args
            calm = replace(view, clear_for_s=1e9, held_before=False)
            return sees(snapshot, calm, hold=frozenset(), held_deployments=frozenset(), **given)

        monkeypatch.setattr(evict, "decide", deaf)
        broken = [
            each
            for seed in BLIND_SEEDS
            for each in run(random_scenario(seed), seed=seed).report.violations
        ]
        assert any(Invariant.OUTAGE.value in each for each in broken), broken

    def test_green_with_traffic_before_its_promotion_is_found(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """I4"""
        monkeypatch.setattr(warmup, "traffic_when_ready", lambda *_: Traffic.ACTIVE)
        fleet = {
            "chat": {"replicas": 2, "policy": {"strategy": "blue-green", "promote_delay_s": 60}}
        }
        broken = self.broken(scenario(deployments=fleet))
        assert any("I4_traffic" in each for each in broken), broken

    def broken(self, of: Scenario) -> tuple[str, ...]:
        for seed in range(5):
            found = run(of, seed=seed).report.violations
            if found:
                return found
        return ()


class TestScenarioFiles:
    @pytest.mark.parametrize(
        ("given", "says"),
        [
            ({"steps": [{"at_s": 1, "do": "start", "of": "nobody"}]}, "'nobody' is no deployment"),
            ({"steps": [{"at_s": 1, "do": "lose"}]}, "say what"),
            ({"steps": [{"at_s": 1, "do": "step_clock", "what": "proxy"}]}, "has no clock"),
            ({"steps": [{"at_s": 1, "do": "scale", "of": "chat"}]}, "say replicas"),
            ({"steps": [{"at_s": 9999, "do": "flush"}]}, "after the end"),
            ({"steps": [{"at_s": 1, "do": "dance"}]}, "dance"),
            ({"deployments": {"chat": {"policy": {"strategy": "magic"}}}}, "magic"),
            ({"unknown": 1}, "unknown"),
        ],
    )
    def test_what_cannot_be_is_refused_in_one_line(
        self, given: Mapping[str, object], says: str
    ) -> None:
        with pytest.raises(InvalidInput, match=says) as caught:
            scenario(**given)
        assert "\n" not in str(caught.value)

    def test_a_file_that_is_not_there_or_no_toml_is_told(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidInput, match="name a scenario file, or `random`"):
            load(tmp_path / "none.toml")
        (tmp_path / "bad.toml").write_text("title = ")
        with pytest.raises(InvalidInput, match=r"bad\.toml is no TOML"):
            load(tmp_path / "bad.toml")


def test_the_picture_is_well_formed_and_escapes_what_it_is_told() -> None:
    drawn = svg(run(scenario(title="a <b> & c", duration_s=300), seed=0))
    texts = [each.text for each in ET.fromstring(drawn).iter() if each.text]  # noqa: S314 - ours
    assert "a <b> & c" in texts
