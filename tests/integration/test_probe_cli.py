"""The prober's commands as a person types them, against a real bus and real replicas."""

import json
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anyio.to_thread
import pytest
from redis import Redis

from controller.embedded import EmbeddedValkey
from probe.wire import Keys, decode_target, encode
from tests.fakes.entries import replica, status, target
from tests.fakes.farm import Farm

NOWHERE = "unix:///nonexistent/bus.sock"


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedValkey]:
    with tempfile.TemporaryDirectory(prefix="fp-") as directory:
        running = EmbeddedValkey(Path(directory, "bus"))
        running.start()
        yield running
        running.stop()


@pytest.fixture
def bus(server: EmbeddedValkey) -> Iterator[Redis]:
    with Redis.from_url(server.url) as client:
        client.flushall()
        yield client


@pytest.fixture
async def farm() -> AsyncIterator[Farm]:
    async with Farm() as planted:
        yield planted


def fleetpulse(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    code = (
        "import sys; from probe.cli import COMMANDS; "
        "COMMANDS[sys.argv[1]](sys.argv[2:], prog_name=sys.argv[1])"
    )
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


async def typed(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command while the farm's loop goes on."""
    return await anyio.to_thread.run_sync(lambda: fleetpulse(*arguments))


def lines(*targets: object) -> str:
    return "".join(
        f"{each if isinstance(each, str) else encode(each).decode()}\n" for each in targets
    )


class TestCheck:
    async def test_a_replica_that_answers_passes(self, farm: Farm) -> None:
        plot = farm.plant("ok200")
        url = f"http://{plot.host}:{plot.port}/health"
        ran = await typed("check", url, "--allow", "127.0.0.0/8")
        assert (ran.returncode, ran.stderr) == (0, "")
        assert ran.stdout.splitlines()[0] == f"passed  {url}"
        assert "OK (HTTP 200)" in ran.stdout
        assert "connect" in ran.stdout
        assert "verdict: healthy after 1 passed and 0 failed in a row" in ran.stdout

    async def test_json_has_phases_reason_and_verdict(self, farm: Farm) -> None:
        plots = [farm.plant("s503"), farm.plant("ok200")]
        urls = [f"http://{plot.host}:{plot.port}/health" for plot in plots]
        ran = await typed("check", *urls, "--allow", "127.0.0.0/8", "--json")
        assert ran.returncode == 1
        failed, passed = map(json.loads, ran.stdout.splitlines())
        assert (failed["target"], failed["passed"], failed["healthy"]) == (urls[0], False, False)
        assert (failed["reason"], failed["http_status"]) == ("STATUS_UNEXPECTED", 503)
        assert passed["passed"]
        assert passed["latency_ms"] > 0
        assert passed["phases_ms"]["connect"] > 0

    async def test_profile_asks_what_its_engine_documents(self, farm: Farm) -> None:
        plot = farm.plant("ok200")
        url = f"http://{plot.host}:{plot.port}/"
        ran = await typed("check", url, "--allow", "127.0.0.0/8", "--profile", "openai", "--json")
        found = json.loads(ran.stdout)
        assert farm.heads[plot.host].startswith(b"GET /v1/models HTTP/1.1\r\n")
        assert (ran.returncode, found["reason"], found["http_status"]) == (1, "BODY_MISMATCH", 200)
        assert found["detail"].startswith("body is not JSON")
        assert found["detail"].endswith("2 bytes beginning 'ok'")

    async def test_loopback_is_refused_unless_allowed(self, farm: Farm) -> None:
        plot = farm.plant("ok200")
        ran = await typed("check", f"http://{plot.host}:{plot.port}/")
        assert ran.returncode == 1
        assert "POLICY_DENIED" in ran.stdout
        assert f"--allow {plot.host}" in ran.stdout
        assert farm.connections[plot.host] == 0

    async def test_a_replica_id_counts_on_from_its_streak(
        self, server: EmbeddedValkey, bus: Redis, farm: Farm
    ) -> None:
        plot = farm.plant("s500")
        given = target(
            1, replica_host=plot.host, inference_port=plot.port, max_retries=3, timeout_s=2.0
        )
        await anyio.to_thread.run_sync(
            lambda: fleetpulse("targets", "load", "-", "--redis", server.url, stdin=lines(given))
        )
        bus.set(Keys().status(replica(1)), encode(status(1, consecutive_failures=1)), ex=60)
        ran = await typed(
            "check", replica(1).upper(), "--redis", server.url, "--allow", "127.0.0.0/8", "--json"
        )
        found = json.loads(ran.stdout)
        assert (ran.returncode, found["consecutive_failures"], found["healthy"]) == (1, 2, True)

    async def test_a_hang_ends_at_the_target_s_own_deadline(
        self, server: EmbeddedValkey, bus: Redis, farm: Farm
    ) -> None:
        plot = farm.plant("hang")
        given = target(1, replica_host=plot.host, inference_port=plot.port, timeout_s=0.2)
        await anyio.to_thread.run_sync(
            lambda: fleetpulse("targets", "load", "-", "--redis", server.url, stdin=lines(given))
        )
        assert bus.dbsize() > 0
        ran = await typed(
            "check", replica(1), "--redis", server.url, "--allow", "127.0.0.0/8", "--json"
        )
        assert json.loads(ran.stdout)["reason"] == "RESPONSE_TIMEOUT"

    @pytest.mark.parametrize(
        ("asked", "said"),
        [
            ("10.0.0.1:80", "is not a replica id"),
            ("http://user@10.0.0.1/", "is neither a URL nor a replica id"),
            ("http://10.0.0.1:99999/", "is not a URL"),
            ("ftp://10.0.0.1/", "is neither a URL nor a replica id"),
            ("http://127.1/", "is not a canonical IP address"),
            ("http://10.0.0.1/a b", "health_path"),
            ("http://10.0.0.1/ --profile vlm", "'vlm' is not known, did you mean 'vllm'?"),
        ],
    )
    def test_what_cannot_be_probed_is_a_usage_error(self, asked: str, said: str) -> None:
        url, *profile = asked.split(" --profile ")
        ran = fleetpulse("check", url, *(("--profile", *profile) if profile else ()))
        assert (ran.returncode, ran.stdout) == (2, "")
        assert said in ran.stderr
        assert "Traceback" not in ran.stderr

    def test_an_id_the_bus_does_not_know_is_said(self, server: EmbeddedValkey, bus: Redis) -> None:
        assert bus.dbsize() == 0
        ran = fleetpulse("check", replica(9), "--redis", server.url)
        assert ran.returncode == 2
        assert f"the bus has no target {replica(9)}" in ran.stderr


class TestTargets:
    def test_good_lines_are_loaded_and_bad_ones_named(
        self, server: EmbeddedValkey, bus: Redis, tmp_path: Path
    ) -> None:
        file = tmp_path / "targets.jsonl"
        bad = lines(target(2)).replace(":8000", ":99999").strip()
        leaky = target(3, headers={"Authorization": "Bearer sk-1"})
        file.write_text(lines(target(1), "", "{", bad, leaky, target(4, scheme="https")))
        ran = fleetpulse("targets", "load", str(file), "--redis", server.url)
        assert ran.returncode == 1
        assert ran.stdout == "loaded 2 targets, rejected 3 lines\n"
        reported = ran.stderr.splitlines()
        assert [text.split(":")[0] for text in reported] == ["line 3", "line 4", "line 5"]
        assert "inference_port" in reported[1]
        assert reported[2].startswith("line 5: headers: Authorization: a reference is env:")
        assert "sk-1" not in ran.stderr
        assert 3590 <= bus.ttl(Keys().target(replica(1))) <= 3600
        assert bus.exists(Keys().target(replica(4)))
        assert not bus.exists(Keys().target(replica(3)))

    def test_json_tells_the_same(self, server: EmbeddedValkey, bus: Redis) -> None:
        given = lines(target(1), "nonsense")
        ran = fleetpulse("targets", "load", "-", "--json", "--redis", server.url, stdin=given)
        answer = json.loads(ran.stdout)
        assert answer["loaded"] == 1
        assert [entry["line"] for entry in answer["rejected"]] == [2]
        assert bus.hlen(Keys().versions) == 1

    def test_the_list_can_be_loaded_again(self, server: EmbeddedValkey, bus: Redis) -> None:
        given = [target(1, deployment="d"), target(2, interval_s=3.0)]
        fleetpulse("targets", "load", "-", "--redis", server.url, stdin=lines(*given))
        listed = fleetpulse("targets", "list", "--json", "--redis", server.url)
        assert list(map(decode_target, listed.stdout.splitlines())) == given
        bus.flushall()
        again = fleetpulse("targets", "load", "-", "--redis", server.url, stdin=listed.stdout)
        assert again.returncode == 0

    def test_the_list_for_people_is_plain_off_a_terminal(
        self, server: EmbeddedValkey, bus: Redis
    ) -> None:
        fleetpulse(
            "targets", "load", "-", "--redis", server.url, stdin=lines(target(1, deployment="d"))
        )
        assert bus.dbsize() > 0
        ran = fleetpulse("targets", "list", "--redis", server.url)
        head, row = ran.stdout.splitlines()
        assert head.split() == ["REPLICA", "ADDRESS", "PATH", "EVERY", "DEPLOYMENT"]
        assert row.split() == [replica(1), "127.0.0.1:8000", "/health", "10", "s", "d"]
        assert "\x1b" not in ran.stdout

    def test_remove_takes_target_and_status(self, server: EmbeddedValkey, bus: Redis) -> None:
        """R-44."""
        fleetpulse("targets", "load", "-", "--redis", server.url, stdin=lines(target(1)))
        bus.set(Keys().status(replica(1)), encode(status(1)), ex=60)
        ran = fleetpulse("targets", "remove", replica(1), "--redis", server.url)
        assert (ran.returncode, ran.stdout) == (0, "removed 1 of 1 targets\n")
        assert not bus.exists(Keys().target(replica(1)), Keys().status(replica(1)))
        assert fleetpulse("targets", "remove", replica(1), "--redis", server.url).returncode == 1

    def test_a_file_that_is_not_there_is_a_usage_error(self) -> None:
        assert fleetpulse("targets", "load", "/nonexistent.jsonl").returncode == 2


class TestStatus:
    def arrange(self, server: EmbeddedValkey, bus: Redis) -> None:
        given = lines(target(1), target(2), target(3))
        fleetpulse("targets", "load", "-", "--redis", server.url, stdin=given)
        bus.set(Keys().status(replica(1)), encode(status(1)), ex=60)
        down = status(2, healthy=False, reason="CONNECT_REFUSED", consecutive_failures=4)
        bus.set(Keys().status(replica(2)), encode(down), ex=60)

    def test_every_target_has_its_line(self, server: EmbeddedValkey, bus: Redis) -> None:
        self.arrange(server, bus)
        ran = fleetpulse("status", "--redis", server.url)
        assert ran.returncode == 0
        rows = [row.split()[:3] for row in ran.stdout.splitlines()[1:]]
        assert rows == [
            [replica(1), "healthy", "OK"],
            [replica(2), "unhealthy", "CONNECT_REFUSED"],
            [replica(3), "unknown", "-"],
        ]

    def test_those_asked_about_decide_the_exit_code(
        self, server: EmbeddedValkey, bus: Redis
    ) -> None:
        self.arrange(server, bus)
        assert fleetpulse("status", replica(1), "--redis", server.url).returncode == 0
        assert fleetpulse("status", replica(1), replica(2), "--redis", server.url).returncode == 1

    def test_json_is_what_the_bus_has(self, server: EmbeddedValkey, bus: Redis) -> None:
        self.arrange(server, bus)
        ran = fleetpulse("status", "--json", "--redis", server.url)
        found = [json.loads(text) for text in ran.stdout.splitlines()]
        assert [each["healthy"] for each in found] == [True, False, None]
        assert found[1]["consecutive_failures"] == 4

    def test_watch_off_a_terminal_prints_changes_until_it_is_interrupted(
        self, server: EmbeddedValkey, bus: Redis
    ) -> None:
        self.arrange(server, bus)
        code = "from probe.cli import status; import sys; status(sys.argv[1:])"
        with subprocess.Popen(
            [sys.executable, "-c", code, "--watch", "--json", "--redis", server.url],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as watching:
            assert watching.stdout is not None
            first = [json.loads(watching.stdout.readline()) for _ in range(3)]
            assert [each["healthy"] for each in first] == [True, False, None]
            bus.set(Keys().status(replica(3)), encode(status(3)), ex=60)
            changed = json.loads(watching.stdout.readline())
            assert (changed["replica_id"], changed["healthy"]) == (replica(3), True)
            watching.send_signal(2)
            assert watching.wait(5) == 0
            assert watching.stderr is not None
            assert watching.stderr.read() == ""


class TestUnreachable:
    @pytest.mark.parametrize(
        "arguments",
        [
            ("probe", "--metrics", "127.0.0.1:0"),
            ("targets", "list"),
            ("targets", "remove", replica(1)),
            ("status",),
            ("status", "--watch"),
            ("check", replica(1)),
        ],
    )
    def test_a_bus_out_of_reach_is_one_sentence_and_exit_3(
        self, arguments: tuple[str, ...]
    ) -> None:
        ran = fleetpulse(*arguments, "--redis", NOWHERE)
        assert ran.returncode == 3
        assert ran.stdout == ""
        assert len(ran.stderr.splitlines()) == 1
        assert "/nonexistent/bus.sock cannot be reached" in ran.stderr


class TestProbe:
    def test_check_config_tells_sources_and_masks_secrets(self, tmp_path: Path) -> None:
        file = tmp_path / "p.toml"
        file.write_text("[probe]\nflush_s = 0.1\n")
        url = "redis://u:s3cret@bus/0"
        arguments = ("--config", str(file), "--redis", url, "--allow", "10.0.0.0/8")
        ran = fleetpulse("probe", *arguments, "--check-config")
        assert ran.returncode == 0
        assert 'redis_url = "redis://u:***@bus/0"  # flag' in ran.stdout
        assert f"flush_s = 0.1  # file {file}" in ran.stdout
        assert 'allow = ["10.0.0.0/8"]  # flag' in ran.stdout
        assert "heartbeat_s = 5.0  # default" in ran.stdout

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("flsh_s = 1", "unknown key 'probe.flsh_s', did you mean 'probe.flush_s'?"),
            ("heartbeat_s = 9", "at most 5"),
            ("max_connections = 1000000", "file descriptors, but the limit is"),
            ("metrics = '192.0.2.1:0'", "the metrics address 192.0.2.1:0 cannot be bound"),
            (
                "metrics = '192.0.2.1:0'\nworkers = 2",
                "the metrics address 192.0.2.1:0 cannot be bound",
            ),
        ],
    )
    def test_settings_that_cannot_work_are_one_sentence_and_exit_2(
        self, server: EmbeddedValkey, bus: Redis, tmp_path: Path, text: str, said: str
    ) -> None:
        assert bus.dbsize() == 0
        file = tmp_path / "p.toml"
        file.write_text(f"[probe]\n{text}\n")
        ran = fleetpulse("probe", "--config", str(file), "--redis", server.url)
        assert ran.returncode == 2
        assert said in ran.stderr
        assert "Traceback" not in ran.stderr

    def test_a_bus_laid_out_otherwise_is_refused(self, server: EmbeddedValkey, bus: Redis) -> None:
        bus.set(Keys().partitions, 32, ex=60)
        ran = fleetpulse("probe", "--metrics", "127.0.0.1:0", "--redis", server.url)
        assert ran.returncode == 2
        assert "32 partitions" in ran.stderr

    def test_help_imports_neither_redis_nor_rich(self) -> None:
        code = (
            "import sys, probe.cli\n"
            "heavy = {'redis', 'rich', 'sqlalchemy', 'uvloop', 'prometheus_client', 'anyio'}\n"
            "print(sorted(heavy & set(sys.modules)))"
        )
        ran = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
        )
        assert ran.stdout == "[]\n"
