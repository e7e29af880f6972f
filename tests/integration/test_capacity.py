"""`fleetpulse capacity` measures this machine, and tells people and programs."""

import json
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from probe import cli
from probe.capacity import Capacity, Regime, _kept_and_dialled, lines

SECONDS = 3.0


def regime(connections: str, per_second: int) -> Regime:
    return msgspec.convert(
        {
            "connections": connections,
            "cpu_us_per_probe": 0.7e6 / per_second,
            "probes_per_second": per_second,
            "probes_measured": 1000,
            "failed": 0,
        },
        Regime,
    )


def run(*arguments: str) -> tuple[str, float]:
    started = time.monotonic()
    command = [str(Path(sys.executable).with_name("fleetpulse")), "capacity", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # a progress bar is for terminals
    return done.stdout, time.monotonic() - started


def test_it_measures_both_kinds_of_connections_within_its_time() -> None:
    text, took_s = run("--seconds", str(SECONDS), "--json")
    found = msgspec.convert(json.loads(text), Capacity)
    kept, new = found.regimes
    assert took_s < SECONDS + 7  # interpreter, stand-in and a busy machine included
    assert (kept.connections, new.connections) == ("kept", "new")
    assert kept.probes_measured > 100 < new.probes_measured
    assert 3 < kept.cpu_us_per_probe < new.cpu_us_per_probe < 2000
    assert found.memory_bytes_per_target < 20_000
    for each in found.reach:
        assert 0 < each.if_closed <= each.if_kept


def test_headroom_is_left_and_what_cannot_be_kept_is_dialled() -> None:
    """30 % of a core stays free; beyond the descriptors each probe costs a connection."""
    kept, new = regime("kept", 40_000), regime("new", 10_000)
    assert _kept_and_dialled(1.0, kept, new, max_kept=50_000) == 40_000
    half_kept = _kept_and_dialled(1.0, kept, new, max_kept=20_000)
    assert half_kept == 20_000 + 5_000
    assert _kept_and_dialled(1.0, kept, new, max_kept=0) == 10_000


def test_a_person_reads_a_table_and_is_told_of_a_bad_measurement() -> None:
    doubtful = msgspec.structs.replace(regime("new", 10_000), failed=3)
    found = Capacity(
        regimes=(regime("kept", 40_000), doubtful),
        reach=(),
        memory_bytes_per_target=4000,
        memory_available_mb=1000,
        descriptors=1024,
        connections_kept_max=720,
        local_ports=28232,
        cpus=2,
    )
    text = "\n".join(lines(found))
    assert "40,000" in text
    assert "720 connections are kept, the rest dial" in text
    assert "3 probes did not pass" in text


@pytest.mark.parametrize("seconds", ["1", "60", "soon"])
def test_a_time_out_of_bounds_is_refused(seconds: str) -> None:
    result = CliRunner().invoke(cli.capacity, ["--seconds", seconds])
    assert result.exit_code == cli.EXIT_USAGE
