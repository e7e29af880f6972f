"""Faults of the prober's own machine, each real: none of them is ever charged to a replica."""

import json
import os
import shutil
import subprocess
import sys
from typing import Any

import pytest

FULL = os.environ.get("FLEETPULSE_FULL") == "1"
TARGETS, SECONDS, PROBES = (9000, 100.0, 600_000) if FULL else (900, 14.0, 3_000)
"""At full size: 600,000 probes of healthy replicas, in two minutes on two cores."""


def in_a_namespace(*command: str) -> list[str]:
    """Return `command` for a network of its own, which ends with it."""
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        reason = "unshare and ip are not on PATH: apt-get install util-linux iproute2"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return ["unshare", "--user", "--map-root-user", "--net", *command]


@pytest.fixture(scope="session")  # in random order a module may be entered twice
def found() -> dict[str, Any]:
    command = in_a_namespace(sys.executable, "-m", "tests.chaos.faults_run")
    command += ["--targets", str(TARGETS), "--seconds", str(SECONDS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    assert done.stdout, done.stderr[-4000:]
    print(done.stdout)  # noqa: T201 - the figures, shown with -s
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.mark.timeout(420)
@pytest.mark.xdist_group("chaos")
def test_no_fault_of_ours_makes_a_healthy_replica_look_bad(found: dict[str, Any]) -> None:
    """R-53: neither a stall, nor descriptors, nor ports, nor the resolver is ever theirs."""
    assert found["false_bad"] == 0, found
    assert found["unhealthy_verdicts"] == 0, found
    assert found["probes_of_healthy"] >= PROBES, found


@pytest.mark.timeout(420)
@pytest.mark.xdist_group("chaos")
def test_every_fault_was_felt_and_what_hangs_was_found(found: dict[str, Any]) -> None:
    errors = found["not_passed"]
    assert errors.get("LOCAL_LAG", 0) > 0, found
    assert set(found["faults"]) == {"stall", "fds", "ports", "names"}
    assert errors.get("LOCAL_FDS", 0) > 0, found
    assert errors.get("LOCAL_PORTS", 0) > 0, found
    assert found["questions_unanswered"] > 0, found
    assert found["hanging_found"] > 0, found
