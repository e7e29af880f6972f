"""`fleetpulse simulate` as a person runs it: every scenario of the docs, and seeds by chance.

FLEETPULSE_FULL=1 runs 5,000 seeds instead of 40; it takes a quarter of an hour of two cores.
"""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import pytest

from controller.simulate.chance import DURATION_S, random_scenario
from controller.simulate.report import run
from controller.simulate.scenario import load
from controller.simulate.sweep import sweep

DOCS: Final = Path(__file__).parents[2] / "docs"
SCENARIOS: Final = sorted((DOCS / "scenarios").glob("*.toml"))
FULL: Final = os.environ.get("FLEETPULSE_FULL") == "1"
SEEDS: Final = 5000 if FULL else 40


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_scenario_of_the_docs_comes_to_what_it_says(path: Path) -> None:
    report = run(load(path), seed=0).report
    assert report.good, (*report.violations, *report.unexpected)


def test_there_are_a_dozen_scenarios_and_the_docs_name_each() -> None:
    told = (DOCS / "simulator.md").read_text()
    assert len(SCENARIOS) >= 12
    assert [path.name for path in SCENARIOS if f"scenarios/{path.name}" not in told] == []


def test_no_seed_breaks_an_invariant() -> None:
    """I1 to I12"""
    started, wrong, rollouts = time.perf_counter(), list[str](), 0
    for report in sweep(range(SEEDS), processes=2 if FULL else 1):
        rollouts += sum(len(each.outcomes) for each in report.deployments.values())
        wrong += [f"seed {report.seed}: {each}" for each in report.violations]
    speed = SEEDS / (time.perf_counter() - started)
    sys.stdout.write(
        f"{SEEDS} seeds of {DURATION_S:g} virtual seconds, {rollouts} rollouts, "
        f"{len(wrong)} violations; {speed:.2f} seeds per second\n"
    )
    assert wrong == []


@pytest.mark.parametrize(
    ("seed", "met"),
    [
        (1212, "the database is away when a rollout is resumed"),
        (2382, "the only controller stands still at a deadline"),
        (2848, "the database is away for longer than orphans may be"),
    ],
    ids=str,
)
def test_a_seed_that_was_told_wrong_once_is_well(seed: int, met: str) -> None:
    report = run(random_scenario(seed), seed=seed).report
    assert report.good, (met, report.violations)


def simulate(*words: str, hash_seed: str = "0") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [str(Path(sys.executable).with_name("fleetpulse")), "simulate", *words],
        capture_output=True,
        check=False,
        timeout=120,
        env=os.environ | {"PYTHONHASHSEED": hash_seed},
    )


def test_output_does_not_depend_on_the_seed_of_hashes(tmp_path: Path) -> None:
    told = []
    for hash_seed in ("0", "1"):
        picture = tmp_path / f"{hash_seed}.svg"
        done = simulate("random", "--seed", "5", "--svg", str(picture), hash_seed=hash_seed)
        assert done.returncode == 0, done.stderr
        told.append((done.stdout, picture.read_bytes()))
    assert told[0] == told[1]


def test_a_run_that_is_not_as_expected_ends_with_3(tmp_path: Path) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text('title = "wrong"\nduration_s = 60\n[expect]\nevicted = 9\n')
    done = simulate(str(path))
    assert (done.returncode, b"WRONG: evicted: 0, expected 9" in done.stdout) == (3, True)


def test_a_scenario_that_is_not_there_is_told_in_one_line(tmp_path: Path) -> None:
    done = simulate(str(tmp_path / "none.toml"))
    assert done.returncode == 1
    assert done.stderr.count(b"\n") == 1
    assert b"Traceback" not in done.stderr
