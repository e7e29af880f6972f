"""`fleetpulse up` as a person starts it, and ends it."""

import json
import signal

import pytest

from tests.fakes.up import STOP_S, assert_nothing_left, family, started, wait_until_serving


def test_a_run_for_a_time_ends_by_itself_with_its_summary_as_the_last_line() -> None:
    with started("--replicas", "40", "--for", "25", "--json") as (process, directory):
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        summary = json.loads(out.splitlines()[-1])
        assert_nothing_left(directory)
    assert summary["targets"] == summary["healthy"] == 40
    assert summary["probes"] >= 40 * 15
    # The rolling update that follows takes 10 s here, and longer on a busy machine.
    assert summary["rollouts"] >= 3, "three first deployments"
    assert summary["invariant_violations"] == summary["evictions"] == 0
    assert summary["status_age_max_seconds"] <= 5


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_behind_however_it_ends(sign: signal.Signals) -> None:
    with started("--replicas", "5") as (process, directory):
        wait_until_serving(process)
        assert len(family(directory)) >= 5, "bus, fleet, controller, prober and janitor"
        process.send_signal(sign)
        process.wait(STOP_S)
        assert_nothing_left(directory)
        assert process.returncode == (0 if sign is not signal.SIGKILL else -signal.SIGKILL)


def test_a_number_that_cannot_be_is_refused_in_one_sentence() -> None:
    with started("--replicas", "0") as (process, _):
        _, err = process.communicate(timeout=20)
        assert process.returncode == 2
        assert "0 is not in the range" in err
        assert "Traceback" not in err
