"""Outages of everything around the replicas evict none that lives, and all comes back in time.

Reduced here; with `FLEETPULSE_FULL=1` with their full durations (40 minutes for each database), as
`python -m tests.chaos.outages_run --full [--postgres]` does. At the reduced size a new leader's
caution (30 s) would keep evictions back as well; at full size one replica that really fails is
shown to go first, and the run waits until evictions may begin again after each outage.
"""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.chaos.outages_run import OUTAGES
from tests.chaos.test_faults import in_a_namespace
from tests.fakes.outage_figures import FRESH_WITHIN_S, TARGETS_WITHIN_S
from tests.fakes.postgres import binaries

FULL = os.environ.get("FLEETPULSE_FULL") == "1"
LIMIT_S = 4000 if FULL else 240
DATABASES = ("sqlite", "postgresql") if FULL else ("sqlite",)


@pytest.fixture(scope="session", params=DATABASES)
def found(request: pytest.FixtureRequest) -> dict[str, Any]:
    in_a_namespace()  # where there is none, nobody can be cut off
    command = [sys.executable, "-m", "tests.chaos.outages_run", *(["--full"] if FULL else [])]
    if request.param == "postgresql":
        assert binaries() is not None
        command.append("--postgres")
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.stdout, done.stderr[-4000:]
    print(done.stdout)  # noqa: T201 - the figures, shown with -s
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.mark.timeout(LIMIT_S + 20)
@pytest.mark.xdist_group("chaos")
def test_no_outage_takes_a_live_replica_out(found: dict[str, Any]) -> None:
    """R-05, R-20e, I11"""
    assert set(found["outages"]) == set(OUTAGES)
    for outage in found["outages"].values():
        assert outage["evicted_live"] == 0, found
        assert outage["still_out"] == 0, found
        # Traffic is stopped before anybody confirms, and comes back: no faster than velocity
        # allows, and only where a prober that lives says that a replica fails.
        most = max(5, found["routes"] // 20) if outage["name"] == "one_isolated" else 0
        assert outage["lost_from_traffic"] <= most, found
        assert outage["felt"] > 0, found
    assert found["violations"] == {}, found
    if FULL:
        assert found["control_evicted_s"] is not None, "nothing was ever evicted: it shows nothing"
    else:
        assert sum(found["evictions"].values()) == 0, found


@pytest.mark.timeout(LIMIT_S + 20)
@pytest.mark.xdist_group("chaos")
def test_what_was_away_is_back_in_time(found: dict[str, Any]) -> None:
    assert not [late for outage in found["outages"].values() for late in outage["late"]], found
    for name in ("bus_down", "flushes"):
        assert found["outages"][name]["targets_back_s"] <= TARGETS_WITHIN_S, found
        assert found["outages"][name]["fresh_s"] <= FRESH_WITHIN_S, found
