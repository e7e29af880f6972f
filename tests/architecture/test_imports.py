"""The import contracts hold, and each of them goes red when somebody breaks it."""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
LINT_IMPORTS = Path(sys.executable).with_name("lint-imports")


class Break(NamedTuple):
    contract: str
    module: str
    line: str


BREAKS = (
    Break("probe-layers", "probe/errors.py", "import probe.wire"),
    Break("probe-layers", "probe/faults.py", "import probe.check"),
    Break("probe-layers", "probe/settings.py", "import probe.metrics"),
    Break("probe-layers", "probe/limits.py", "import probe.ops"),
    Break("probe-layers", "probe/orphan.py", ""),
    Break("probe-http-layers", "probe/http/connection.py", "import probe.http.pool"),
    Break("probe-http-layers", "probe/http/response.py", "import probe.http.request"),
    Break("probe-bus-layers", "probe/bus/batch.py", "import probe.bus.client"),
    Break("probe-schedule-layers", "probe/schedule/pace.py", "import probe.schedule.beat"),
    Break("wire-and-bus-apart", "probe/bus/prober.py", "import probe.http.policy"),
    Break("controller-layers", "controller/errors.py", "import controller.model"),
    Break("controller-layers", "controller/route/evict.py", "import controller.rollout.rolling"),
    Break("controller-layers", "controller/db/rows.py", "import controller.reconcile.runner"),
    Break("controller-layers", "controller/bus.py", "import controller.lease"),
    Break("controller-layers", "controller/orphan.py", ""),
    Break("probe-alone", "probe/daemon.py", "import controller.model"),
    Break("probe-lean", "probe/layers.py", "import yaml"),
    Break("controller-shares", "controller/daemon.py", "import probe.sweep"),
    Break("core-pure", "probe/schedule/scheduler.py", "from time import monotonic"),
    Break("core-pure", "probe/reasons.py", "import errno, os"),
    Break("core-pure", "probe/http/response.py", "import asyncio"),
    Break("core-pure", "controller/rollout/rolling.py", "import random"),
    Break("core-pure", "controller/route/leave.py", "import structlog"),
    Break("redis-room", "probe/refresh.py", "import redis.exceptions"),
    Break("sql-room", "controller/reconcile/runner.py", "import sqlalchemy"),
    Break("api-room", "controller/reconcile/runner.py", "import litestar"),
)


def lint(root: Path, cache: Path) -> subprocess.CompletedProcess[str]:
    """Check the contracts of the tree at `root`, whose own packages come first on the path."""
    return subprocess.run(
        [LINT_IMPORTS, "--no-logo", "--config", root / "pyproject.toml", "--cache-dir", cache],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def broken(output: str) -> set[str]:
    """Return the ids of the contracts that the report calls broken."""
    told = " ".join(output.split())  # names may be wrapped
    return {contract["id"] for contract in contracts() if f"{contract['name']} BROKEN" in told}


def contracts() -> list[dict[str, str]]:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    found: list[dict[str, str]] = pyproject["tool"]["importlinter"]["contracts"]
    return found


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all copies: a copy keeps the files' times, so only the break is parsed."""
    return tmp_path_factory.mktemp("grimp")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for package in ("probe", "controller"):
        shutil.copytree(
            ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    shutil.copy2(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_every_import_contract_holds(cache: Path) -> None:
    result = lint(ROOT, cache)
    assert result.returncode == 0, result.stdout + result.stderr
    assert " 0 broken" in result.stdout


@pytest.mark.parametrize(
    "planted", BREAKS, ids=[f"{each.contract}-{Path(each.module).stem}" for each in BREAKS]
)
def test_a_planted_import_breaks_its_contract_and_no_other(
    planted: Break, copy: Path, cache: Path
) -> None:
    with (copy / planted.module).open("a") as module:
        module.write(f"\n{planted.line}\n")
    result = lint(copy, cache)
    assert result.returncode == 1, result.stdout + result.stderr
    assert broken(result.stdout) == {planted.contract}, result.stdout


def test_every_contract_has_a_planted_break() -> None:
    assert {planted.contract for planted in BREAKS} == {each["id"] for each in contracts()}
