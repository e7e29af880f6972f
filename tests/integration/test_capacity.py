"""`fleetpulse capacity` measures this machine, and tells people and programs."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from shutil import rmtree

import msgspec
import pytest
from click.testing import CliRunner
from redis import Redis

from controller.embedded import EmbeddedValkey
from probe import cli
from probe.bounds import Capacity
from probe.commands import stand_ins

SECONDS = 3.0
ROOT = Path(__file__).parents[2]


@pytest.fixture
def bus() -> Iterator[EmbeddedValkey]:
    with tempfile.TemporaryDirectory(prefix="fp-") as directory:
        server = EmbeddedValkey(Path(directory, "bus"))
        server.start()
        yield server
        server.stop()


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
    assert took_s < SECONDS + 20  # interpreter, stand-in and a busy machine included
    assert (kept.connections, new.connections) == ("kept", "new")
    assert kept.probes_measured > 100 < new.probes_measured
    assert 3 < kept.cpu_us_per_probe < new.cpu_us_per_probe < 2000
    assert found.memory_bytes_per_target < 20_000
    assert found.bus is not None
    assert found.bus.url == "", "a server of our own"
    assert found.bus.statuses_written >= kept.probes_measured + new.probes_measured - 2000
    assert found.bus.statuses_per_second > 1000
    for each in found.reach:
        assert 0 < each.if_closed <= each.if_kept


def test_statuses_go_to_the_bus_that_is_named_and_do_not_stay(bus: EmbeddedValkey) -> None:
    text, _ = run("--seconds", str(SECONDS), "--json", "--redis", bus.url)
    found = msgspec.convert(json.loads(text), Capacity)
    assert found.bus is not None
    assert found.bus.url == bus.url
    with Redis.from_url(bus.url) as client:
        keys = [key.decode() for key in client.scan_iter()]
        assert 100 < len(keys) <= found.bus.statuses_written
        assert {key.split(":")[0] for key in keys} == {"capacity"}
        keys.remove("capacity:route_probe_partitions")  # how the keys are dealt: for an hour
        assert all(0 < client.ttl(key) <= 120 for key in keys)


def test_a_bus_that_does_not_answer_is_one_sentence_and_exit_3(tmp_path: Path) -> None:
    address = f"unix://{tmp_path / 'absent'}"
    result = CliRunner().invoke(cli.capacity, ["--seconds", "3", "--redis", address])
    assert result.exit_code == cli.EXIT_UNREACHABLE
    assert result.stderr.startswith("Error: ")
    assert "Traceback" not in result.stderr


def test_where_no_server_is_installed_there_is_no_bus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stand_ins, "server_binary", lambda: None)
    with stand_ins.stand_in_bus() as url:
        assert url is None


def test_a_bus_of_our_own_dies_with_who_started_it() -> None:
    program = (
        "import time\n"
        "from probe.commands.stand_ins import stand_in_bus\n"
        "with stand_in_bus() as url:\n"
        "    print(url, flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=ROOT
    ) as ours:
        assert ours.stdout is not None
        url = ours.stdout.readline().decode().strip()
        with Redis.from_url(url) as client:
            server = int(client.info("server")["process_id"])
        ours.kill()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{server}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    rmtree(Path(url.removeprefix("unix://")).parent)


@pytest.mark.parametrize("seconds", ["1", "60", "soon"])
def test_a_time_out_of_bounds_is_refused(seconds: str) -> None:
    result = CliRunner().invoke(cli.capacity, ["--seconds", seconds])
    assert result.exit_code == cli.EXIT_USAGE
