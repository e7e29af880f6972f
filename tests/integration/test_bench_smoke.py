"""The bench's own instruments: a farm that counts right, a floor that does its work."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from bench.build import Programs, build, missing
from bench.farm import Farm, hosts, usage
from bench.report import page
from bench.rounds import floor_round

ROOT = Path(__file__).parents[2]
needs_compiler = pytest.mark.skipif(missing() is not None, reason=str(missing()))


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Programs:
    return build(tmp_path_factory.mktemp("floor"))


@pytest.fixture
def farm(programs: Programs) -> Iterator[Farm]:
    with Farm(programs.farm) as one:
        yield one


@needs_compiler
def test_the_farm_counts_what_clients_did(farm: Farm) -> None:
    with httpx.Client(trust_env=False, timeout=5) as client:
        for host in hosts(3) * 4:
            assert client.get(f"http://{host}:{farm.port}/health").text == "ok\n"
    counts = farm.counts()
    assert (counts.probes, counts.connections) == (12, 3)


@needs_compiler
def test_the_floor_and_the_farm_count_the_same(programs: Programs, farm: Farm) -> None:
    done = subprocess.run(
        [str(programs.floor), "200", "1"],
        input="".join(f"{host} {farm.port}\n" for host in hosts(20)),
        capture_output=True,
        check=True,
        text=True,
        timeout=30,
    )
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["failed"] == 0
    assert said["probes"] == farm.counts().probes >= 150
    assert farm.counts().connections == 20
    assert said["cpu_seconds"] > 0


@needs_compiler
def test_a_round_of_the_floor_keeps_its_rate_and_its_connections(programs: Programs) -> None:
    done = floor_round(programs, targets=20, seconds=1)
    assert 15 <= done.probes <= 25
    assert done.connections == 20


@needs_compiler
@pytest.mark.slow
def test_one_smoke_round_measures_every_prober() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench", "--smoke", "--json"],
        capture_output=True,
        check=False,
        cwd=ROOT,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    names = [row["prober"] for row in told["probers"]]
    assert names == ["C floor", "fleetpulse wire", "fleetpulse probe"]
    assert all(one["connections"] == 50 for one in told["rounds"])
    assert told["not_shown"]
    text = page(told, commit="abc", floor_lines=143)
    assert [line.split(" | ")[0] for line in text.splitlines() if line.startswith("| ")] == [
        "| prober",
        *(f"| {name}" for name in names),
    ]


def test_without_a_compiler_the_bench_is_skipped_and_says_why() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench", "--smoke"],
        capture_output=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "CC": "/nonexistent/cc"},
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith("skipped: ")


def test_the_usage_of_a_process_includes_what_it_started() -> None:
    child = "print(flush=True); input()"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    with subprocess.Popen(
        [sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        alone = Path(f"/proc/{process.pid}/statm").read_text().split()[1]
        assert usage(process.pid).rss_bytes > int(alone) * os.sysconf("SC_PAGE_SIZE")
        process.stdin.close()
