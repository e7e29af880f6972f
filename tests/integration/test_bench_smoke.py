"""The bench's own instruments: a farm that counts right, a floor that does its work."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import msgspec
import pytest

from bench.build import Programs, build, missing
from bench.case import Case, Check, Mix, Prober, Regime, Run, Verdict, row_of
from bench.farm import Farm, hosts
from bench.goals import TITLES, judged
from bench.machine import usage
from bench.matrix import SIZES, chosen, goal_cases, steady
from bench.plot import COST, GROWTH, draw
from bench.report import NO_REMARKS, figures, page
from bench.run import run
from tests.architecture.test_figures import figures as numbers

ROOT = Path(__file__).parents[2]
SMOKE = SIZES["smoke"]
needs_compiler = pytest.mark.skipif(missing() is not None, reason=str(missing()))


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Programs:
    return build(tmp_path_factory.mktemp("floor"))


@pytest.fixture(params=[False, True], ids=["kept", "new"])
def farm(programs: Programs, request: pytest.FixtureRequest) -> Iterator[Farm]:
    with Farm(programs.farm, closes=request.param) as one:
        yield one


def bench(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "bench", *arguments],
        capture_output=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, **environment},
        text=True,
        timeout=100,
    )


def statuses(farm: Farm, numbers: range, times: int = 1) -> list[int]:
    with httpx.Client(trust_env=False, timeout=5) as client:
        urls = [f"http://{hosts(number)[-1]}:{farm.port}/health" for number in numbers]
        return [client.get(url).status_code for _ in range(times) for url in urls]


@needs_compiler
def test_the_farm_counts_what_clients_did(farm: Farm, request: pytest.FixtureRequest) -> None:
    assert statuses(farm, range(1, 4), times=4) == [200] * 12
    counts = farm.counts()
    assert counts.probes == 12
    assert counts.connections == (3 if "kept" in request.node.name else 12)
    assert farm.seen(3).count == 4
    assert farm.seen(4).count == 0


@needs_compiler
def test_a_target_of_the_farm_answers_as_it_is_told(farm: Farm) -> None:
    farm.answer("fail", first=2, last=2)
    farm.answer("flap", first=3, last=3)
    assert statuses(farm, range(1, 4), times=2) == [200, 503, 503, 200, 503, 200]
    before = time.monotonic()
    farm.answer("pass", first=1, last=3)
    assert statuses(farm, range(1, 4)) == [200, 200, 200]
    assert before <= farm.seen(2).turned <= time.monotonic()


@needs_compiler
def test_a_target_that_hangs_is_counted_and_one_that_refuses_is_not(farm: Farm) -> None:
    farm.answer("hang", first=1, last=1)
    with httpx.Client(trust_env=False, timeout=0.2) as client:
        with pytest.raises(httpx.ReadTimeout):
            client.get(f"http://{hosts(1)[0]}:{farm.port}/health")
        with pytest.raises(httpx.ConnectError):
            client.get(f"http://{hosts(1)[0]}:{farm.refusing_port}/health")
    assert farm.counts().probes == 1


@needs_compiler
def test_the_farm_sees_the_fullest_100_ms_since_it_was_marked(farm: Farm) -> None:
    statuses(farm, range(1, 8))
    assert farm.mark(1.0).fullest_100ms > 0
    assert farm.counts().fullest_100ms == 0
    statuses(farm, range(1, 4))
    assert 1 <= farm.counts().fullest_100ms <= 3


@needs_compiler
@pytest.mark.parametrize("regime", Regime)
def test_the_floor_and_the_farm_count_the_same(programs: Programs, regime: Regime) -> None:
    with Farm(programs.farm, closes=regime is Regime.NEW) as farm:
        done = subprocess.run(
            [str(programs.floor), "200", "1", *([] if regime is Regime.KEPT else ["new"])],
            input="".join(f"{host} {farm.port}\n" for host in hosts(20)),
            capture_output=True,
            check=True,
            text=True,
            timeout=30,
        )
        said = json.loads(done.stdout.splitlines()[-1])
        assert said["failed"] == 0
        counts, in_flight = farm.counts(), 5 if regime is Regime.NEW else 0
        assert 150 <= said["probes"] - in_flight <= counts.probes <= said["probes"]
        assert 0 <= (20 if regime is Regime.KEPT else said["probes"]) - counts.connections < 6
        assert said["cpu_seconds"] > 0


@needs_compiler
@pytest.mark.slow
def test_a_run_in_which_all_kinds_take_part_becomes_a_page_that_is_the_same_twice(
    tmp_path: Path,
) -> None:
    done = run("smoke", SMOKE, frozenset({"P1", "P3", "P4", "P11", "P12"}))
    assert [row.missing for row in done.rows if row.failed] == []
    kept = next(row for row in done.rows if row.case == steady(SMOKE, Prober.PROBE, Regime.KEPT))
    assert SMOKE.targets - 5 <= kept.median["sockets"] <= SMOKE.targets + 5
    assert kept.median["connections_per_s"] < kept.median["probes_per_s"] / 5
    again = msgspec.json.decode(msgspec.json.encode(done), type=Run)
    text = page(done, remarks=NO_REMARKS)
    assert page(again, remarks=NO_REMARKS) == text
    assert numbers(figures(done)) - numbers(text) == set()
    for directory in (tmp_path / "a", tmp_path / "b"):
        draw(done, directory)
    for name in (COST, GROWTH):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_every_goal_has_a_title_cases_and_checks() -> None:
    assert list(goal_cases(SMOKE)) == list(TITLES)
    assert set(SIZES) == {"full", "reduced", "smoke"}
    for size in SIZES.values():
        everything = chosen(size, frozenset())
        assert len(everything) == len(set(everything))
        for goal, cases in goal_cases(size).items():
            assert set(cases) <= set(everything), goal
            assert chosen(size, frozenset({goal})) == list(dict.fromkeys(cases))
    assert all(verdict.checks for verdict in judged([], SMOKE, frozenset()))


def test_a_goal_without_its_case_is_neither_met_nor_missed() -> None:
    floor, wire = (steady(SMOKE, each, Regime.KEPT) for each in (Prober.FLOOR, Prober.WIRE))
    rows = [row_of(floor, [{"cpu_us": 10.0}]), row_of(wire, [{"cpu_us": 12.0}, {"cpu_us": 12.8}])]
    (verdict,) = judged(rows, SMOKE, frozenset({"P1"}))
    assert [check.met for check in verdict.checks] == [True, None]
    assert verdict.met is None
    (verdict,) = judged([row_of(floor, [{"cpu_us": 5.0}]), rows[1]], SMOKE, frozenset({"P1"}))
    assert verdict.met is False


def test_a_goal_is_met_when_all_its_checks_are() -> None:
    low, high = (Check(what="x", limit=2.0, value=value, at_least=True) for value in (1.0, 2.0))
    assert Verdict(goal="P", title="", checks=(high, high)).met is True
    assert Verdict(goal="P", title="", checks=(high, low)).met is False


def test_a_row_is_the_median_of_its_rounds_with_the_extremes() -> None:
    case = Case(prober=Prober.FLOOR, regime=Regime.NEW, targets=1, mix=Mix.FAIL)
    row = row_of(case, [{"cpu_us": cost} for cost in (3.0, 1.0, 2.0)])
    assert [side["cpu_us"] for side in (row.median, row.low, row.high)] == [2.0, 1.0, 3.0]
    assert str(case) == "C floor, new, 1 x 1 s, all answer 503"


def test_without_a_compiler_the_bench_is_skipped_and_says_why() -> None:
    done = bench("--smoke", CC="/nonexistent/cc", CI="")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith("skipped: ")
    assert bench("--smoke", CC="/nonexistent/cc", CI="true").returncode == 1


def test_what_cannot_be_asked_is_told_in_a_sentence() -> None:
    done = bench("--only", "P13")
    assert done.returncode == 2
    assert "P13 is no goal: choose among P1, P2" in done.stderr
    done = subprocess.run(
        ["sh", "-c", 'ulimit -n 300 && exec "$0" -m bench --targets 500', sys.executable],
        capture_output=True,
        check=False,
        cwd=ROOT,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert "500 connections need 700 open files, but the limit is 300" in done.stderr
    assert "ulimit" in done.stderr


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
        assert usage(process.pid).cpu_s > 0
        process.stdin.close()
