"""What a person may get wrong: every mistake is one line with the value, and its exit code."""

import errno
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import anyio
import pytest
from click.testing import CliRunner, Result
from redis import Redis

from controller.cli import main
from controller.db import migrate
from controller.embedded import EmbeddedValkey
from tests.fakes.entries import replica

FLEETPULSE = Path(sys.executable).with_name("fleetpulse")
DEADLINE_S = 20


@pytest.fixture(autouse=True)
def _no_blocking_calls() -> None:
    """A command reads its files inside its loop: nobody else waits there."""


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("database") / "fleet.db"
    anyio.run(migrate.upgrade, str(path))
    ran = typed(
        "deployment apply -f - --database", str(path), given='{"name":"chat","revision":{}}'
    )
    assert ran.exit_code == 0, ran.output
    return path


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def typed(line: str, *more: str, given: str | None = None) -> Result:
    """Run one command in this process, without the variables of whoever runs the tests."""
    without = {name: None for name in os.environ if name.startswith("FLEETPULSE_")}
    return CliRunner().invoke(
        main, [*line.split(), *more], input=given, env=without, prog_name="fleetpulse"
    )


def assert_one_line(ran: Result, code: int, *said: str) -> None:
    assert ran.exit_code == code, (ran.output, ran.exception)
    assert ran.stdout == ""
    assert ran.stderr.startswith("fleetpulse: ")
    assert ran.stderr.count("\n") == 1, ran.stderr
    for words in said:
        assert words in ran.stderr


USAGE = [
    ("deploy", "No such command 'deploy'. Did you mean 'deployment'? See `fleetpulse --help`."),
    ("zzz", "No such command 'zzz'. See `fleetpulse --help`."),
    ("--jsn", "No such option '--jsn'."),
    ("deployment lst", "'lst'. Did you mean 'list'? See `fleetpulse deployment --help`."),
    ("deployment list", "no database is named: pass --database sqlite:///fleetpulse.db, or set"),
    ("deployment list --database=", "no database is named"),
    ("deployment list --database", "'--database' requires an argument"),
    ("deployment list --jsn --database x.db", "Did you mean '--json'?"),
    ("deployment scale chat three --database x.db", "'three' is not a valid integer"),
    ("deployment apply --database x.db", "Missing option '-f' / '--file'"),
    ("deployment show --database x.db", "Missing argument 'NAME'"),
    ("route list a b --database x.db", "unexpected extra argument (b)"),
    ("rollout plan chat --database x.db", "name a deployment and a revision's number, or a file"),
    ("rollout plan chat 2 --starts-in 5x --database x.db", "'5x' is no time; write for example"),
    ("rollout start chat 1.5 --database x.db", "'1.5' is not a valid integer"),
    ("up --replicas 0", "0 is not in the range 1<=x<=5000"),
    ("up --replicas 5001", "5001 is not in the range"),
    ("up --for 0", "0.0 is not in the range"),
    ("up --for nan", "nan is not a count of seconds"),
    ("up --for inf", "inf is not in the range"),
    ("check", "Missing argument 'TARGET...'"),
    ("check nope", "'nope' is not a replica id"),
    ("check http://127.0.0.1:65536/", "'http://127.0.0.1:65536/' is not a URL: Port out of range"),
    ("check http://10.0.0.1/ --allow 10.0.0.1/8", "10.0.0.1/8 has host bits set"),
    ("check http://10.0.0.1/ --allow nonsense", "'nonsense' does not appear to be"),
    ("targets remove nope", "'nope' is not a replica id"),
    ("targets load nosuch.jsonl", "'nosuch.jsonl': No such file or directory"),
    ("status --redis=", "probe.redis_url = ''"),
    ("status --redis http://x", "'http://x': the scheme 'http' is not one of redis, rediss, unix"),
    ("probe --metrics 127.0.0.1:65536", "'127.0.0.1:65536': the port is not in 0-65535"),
    ("probe --metrics 127.0.0.1:70000", "'127.0.0.1:70000': the port is not in 0-65535"),
    ("probe --metrics nowhere", "'nowhere' is not HOST:PORT"),
    ("probe --config nosuch.toml", "nosuch.toml cannot be read"),
    ("controller", "no database is named"),
    ("controller --database x.db --metrics 127.0.0.1:70000", "the port is not in 0-65535"),
]


@pytest.mark.parametrize(("line", "said"), USAGE, ids=[line for line, _ in USAGE])
@pytest.mark.usefixtures("here")
def test_what_cannot_be_meant_is_refused_with_the_value(line: str, said: str) -> None:
    assert_one_line(typed(line), 2, said)


ASKED_ABOUT = [
    ("deployment show nope", 1, "there is no deployment 'nope'; see `fleetpulse deployment list`"),
    ("deployment scale nope 3", 1, "there is no deployment 'nope'"),
    ("deployment delete nope", 1, "there is no deployment 'nope'"),
    ("revision list nope", 1, "there is no deployment 'nope'"),
    ("route list nope", 1, "there is no deployment 'nope'"),
    ("rollout start nope 1", 1, "there is no deployment 'nope'"),
    ("rollout watch nope", 1, "there is no deployment 'nope'"),
    ("rollout abort nope", 1, "there is no deployment 'nope'"),
    ("rollout plan nope 1", 1, "there is no deployment 'nope'"),
    ("rollout plan chat 99", 1, "deployment 'chat' has no revision 99; it has 1"),
    ("rollout pause nope", 1, "there is no deployment 'nope'"),
    ("rollout promote chat", 1, "a rolling update has nothing to promote"),
    ("rollout retry chat", 1, "to revision 1 is in flight; only one that failed"),
    ("rollout start chat 99", 1, "deployment 'chat' has no revision 99; it has 1"),
    ("route register chat --host 10.0.0.1 --port 80", 1, "runs its own replicas; set `external`"),
    ("route register chat --host 10.0.0.1 --port 0", 2, "port 0: give a number from 1 to 65535"),
    ("route register chat --host 10.0.0.1 --port 65536", 2, "port 65536: give a number"),
    ("route register chat --host 10.0.0.1 --port 70000", 2, "port 70000: give a number"),
    ("route register chat --host a/b --port 80", 2, "host 'a/b': give a host name"),
    ("deployment scale chat 10001", 2, "10001 replicas: give a count from 0 to 10000"),
]


@pytest.mark.parametrize(
    ("line", "code", "said"), ASKED_ABOUT, ids=[line for line, _, _ in ASKED_ABOUT]
)
def test_what_is_not_there_or_not_allowed_is_named(
    migrated: Path, line: str, code: int, said: str
) -> None:
    assert_one_line(typed(line, "--database", str(migrated)), code, said)


DATABASES = [
    ("nosuch.db", 3, "create it with `fleetpulse db upgrade`"),
    ("/nonexistent/x.db", 3, "'/nonexistent/x.db' cannot be opened"),
    ("postgresql://u:s3cret@127.0.0.1:1/db", 3, "cannot be reached"),
    ("sqlite:///:memory:", 2, "names no file"),
    ("junk.db", 3, "'junk.db'"),
    ("empty.db", 3, "run `fleetpulse db upgrade`"),
]


@pytest.mark.parametrize(("url", "code", "said"), DATABASES, ids=[url for url, _, _ in DATABASES])
@pytest.mark.parametrize(
    "command", ["deployment list", "rollout watch chat", "route list", "deployment scale chat 3"]
)
def test_a_database_that_cannot_be_used_is_one_sentence(
    here: Path, command: str, url: str, code: int, said: str
) -> None:
    (here / "junk.db").write_bytes(b"\x00\xff" * 2000)
    (here / "empty.db").touch()
    ran = typed(command, "--database", url)
    assert_one_line(ran, code, said)
    assert "s3cret" not in ran.stderr
    assert not (here / "nosuch.db").exists()


@pytest.mark.parametrize("command", ["db current", "controller"])
def test_asking_creates_no_database(here: Path, command: str) -> None:
    assert_one_line(typed(command, "--database", "typo.db"), 3, "'typo.db' cannot be opened")
    assert list(here.iterdir()) == []


def test_a_database_that_somebody_else_holds_is_one_sentence(migrated: Path) -> None:
    with closing(sqlite3.connect(migrated, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert_one_line(
            typed("deployment scale chat 3 --database", str(migrated)), 3, "database is locked"
        )
        listed = typed("deployment list --json --database", str(migrated))
        assert listed.exit_code == 0, "readers do not wait"


def test_a_schema_from_the_future_is_told_and_left_alone(here: Path) -> None:
    assert typed("db upgrade --database new.db").stdout == f"empty -> {migrate.head()}\n"
    with closing(sqlite3.connect(here / "new.db")) as database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
        database.commit()
    shown = typed("db current --database new.db")
    assert (shown.exit_code, shown.stdout.split()[:2]) == (1, ["current", "9999"])
    assert_one_line(typed("db upgrade --database new.db"), 1, "is 9999, this program knows")


FILES = [
    ("a.toml", "name = ", "a.toml: the deployment file is not TOML"),
    ("a.yaml", "a: [", "a.yaml: the deployment file is not YAML"),
    ("a.json", "{", "a.json: the deployment file is not JSON"),
    ("a.json", "[" * 100_000, "maximum recursion depth"),
    ("a.json", "[]", "expected object, got array; write its keys, such as name"),
    ("a.yaml", "", "expected object, got null"),
    ("a.toml", "", "the key 'name' is missing"),
    ("a.txt", "", "'a.txt' does not say what it is written in; name it .toml, .yaml or .json"),
    ("a.toml", "\udcff", "a.toml is not UTF-8"),
    ("a.toml", "replcas = 2", "unknown key 'replcas'; did you mean 'replicas'?"),
    ("a.yaml", "policy: {surg: 1}", "policy: unknown key 'surg'; did you mean 'surge'?"),
    (
        "a.json",
        '{"revision":{"health_check":{"pth":"/"}}}',
        "revision.health_check: unknown key 'pth'; did you mean 'path'?",
    ),
    ("a.json", '{"replicas":-1}', "replicas: expected int >= 0, found -1"),
    ("a.json", '{"replicas":10001}', "replicas: expected int <= 10000, found 10001"),
    ("a.json", '{"policy":{"surge":"x"}}', "found 'x'; write a count such as 2, or a percentage"),
    ("a.json", '{"revision":{"port":65536}}', "revision.port: expected int <= 65535, found 65536"),
    (
        "a.json",
        '{"revision":{"health_check":{"expected_status_code":2.5}}}',
        'found 2.5; write 200, "200-299" or a list of such',
    ),
    (
        "a.yaml",
        "name: !!python/object/apply:os.system [id]",
        "could not determine a constructor for the tag",
    ),
]


@pytest.mark.parametrize(("name", "text", "said"), FILES, ids=range(len(FILES)))
def test_a_deployment_file_that_cannot_be_is_told_with_the_place(
    here: Path, migrated: Path, name: str, text: str, said: str
) -> None:
    (here / name).write_text(text, errors="surrogateescape")
    for command in ("deployment apply -f", "revision add chat -f"):
        ran = typed(command, name, "--database", str(migrated))
        assert_one_line(ran, 2, said)


def test_a_deployment_file_that_is_not_there_is_told_by_name(here: Path, migrated: Path) -> None:
    ran = typed("deployment apply -f nosuch.toml --database", str(migrated))
    assert_one_line(ran, 2, "nosuch.toml cannot be read: No such file or directory")
    (here / "folder.toml").mkdir()
    ran = typed("deployment apply -f folder.toml --database", str(migrated))
    assert_one_line(ran, 2, "folder.toml cannot be read: Is a directory")


@pytest.mark.parametrize(
    "line",
    ["status", "status --watch", "targets list", f"targets remove {replica(1)}"],
)
def test_a_dead_bus_is_one_sentence_and_exit_3(line: str) -> None:
    ran = typed(line, "--redis", "redis://:s3cret@127.0.0.1:1/0")
    assert_one_line(ran, 3, "the bus at 127.0.0.1:1 cannot be reached", "--redis")
    assert "s3cret" not in ran.stderr


@pytest.fixture(scope="module")
def started() -> Iterator[EmbeddedValkey]:
    with tempfile.TemporaryDirectory(prefix="fp-") as directory:
        running = EmbeddedValkey(Path(directory, "bus"))
        running.start()
        yield running
        running.stop()


@pytest.fixture
def server(started: EmbeddedValkey) -> EmbeddedValkey:
    with Redis.from_url(started.url) as client:
        client.flushall()
    return started


def target(**given: object) -> str:
    known: dict[str, object] = {
        "replica_id": replica(1),
        "replica_host": "10.0.0.1",
        "inference_port": 80,
        "health_path": "/",
    }
    return json.dumps(known | given)


LINES = [
    ("{", "Input data was truncated"),
    ("\x00", "JSON is malformed"),
    ("[]", "Expected `object`, got `array`"),
    ("{}", "required field `replica_id`"),
    (target(replica_id="r1"), "replica_id = 'r1': write a UUID in lower case"),
    (target(inference_port=0), "inference_port = '0': expected int >= 1"),
    (target(inference_port=65536), "inference_port = '65536': expected int <= 65535"),
    (target(health_path="x"), "health_path = 'x': write a path that begins with /"),
    (target(interval_s=0), "interval_s = '0': expected float >= 0.1"),
    (target(scheme="ftp"), "Invalid enum value 'ftp' - at `$.scheme`"),
    (target(tls={}), "tls: is set, but scheme is 'http'; use 'https', or leave it out"),
    (target(replica_host="local host"), "write an IP address, a host name, or unix: and a path"),
    (target(headers={"Authorization": "x"}), "never the value itself"),
    (target(checks=["vlm"]), "'vlm' is not known, did you mean 'vllm'?"),
]


def test_every_line_that_is_no_target_says_what_it_should_hold(server: EmbeddedValkey) -> None:
    given = "\n".join([line for line, _ in LINES] + [target()])
    ran = typed("targets load - --redis", server.url, given=given)
    assert (ran.exit_code, ran.stdout) == (1, f"loaded 1 targets, rejected {len(LINES)} lines\n")
    told = ran.stderr.splitlines()
    for number, (said, (_, expected)) in enumerate(zip(told, LINES, strict=True), start=1):
        assert said.startswith(f"line {number}: ")
        assert expected in said


def test_a_key_that_nobody_reads_is_doubted_and_the_line_used(server: EmbeddedValkey) -> None:
    ran = typed("targets load - --redis", server.url, given=target(intervall_s=3))
    assert (ran.exit_code, ran.stdout) == (0, "loaded 1 targets, rejected 0 lines\n")
    assert ran.stderr == (
        "line 1: unknown key 'intervall_s' is ignored, did you mean 'interval_s'?\n"
    )


def test_an_empty_bus_says_how_to_feed_it(server: EmbeddedValkey) -> None:
    for line in ("status", "targets list"):
        ran = typed(line, "--redis", server.url)
        assert (ran.exit_code, ran.stdout) == (0, "")
        assert "feed it with `fleetpulse targets load FILE`" in ran.stderr


def test_a_watch_waits_out_a_bus_that_goes_away(server: EmbeddedValkey) -> None:
    typed("targets load - --redis", server.url, given=target())
    with subprocess.Popen(
        [FLEETPULSE, "status", "--watch", "--redis", server.url],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as watching:
        assert watching.stdout is not None
        assert watching.stderr is not None
        try:
            assert replica(1) in watching.stdout.readline()
            server.stop()
            assert "cannot be reached" in watching.stderr.readline()
            server.start()
            typed("targets load - --redis", server.url, given=target(replica_id=replica(2)))
            assert replica(2) in watching.stdout.readline()
            watching.send_signal(2)
            assert watching.wait(DEADLINE_S) == 0
        finally:
            watching.kill()


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_crash_nothing(server: EmbeddedValkey, closed: str) -> None:
    line = f"{FLEETPULSE} status --redis {server.url} {closed}"
    ran = subprocess.run(["sh", "-c", line], capture_output=True, timeout=DEADLINE_S, check=False)
    assert ran.returncode == 0
    assert b"Assertion" not in ran.stderr
    assert b"Traceback" not in ran.stderr


@pytest.mark.parametrize("line", ["deployment list --json --database", "status --redis"])
def test_a_full_disk_under_the_output_is_one_sentence(
    migrated: Path, server: EmbeddedValkey, line: str
) -> None:
    typed("targets load - --redis", server.url, given=target())
    service = server.url if "redis" in line else str(migrated)
    with Path("/dev/full").open("wb") as full:
        ran = subprocess.run(
            [FLEETPULSE, *line.split(), service],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )
    assert ran.returncode == 1
    assert ran.stderr == (
        f"fleetpulse: {os.strerror(errno.ENOSPC)}: make room, or write elsewhere\n"
    )


def test_a_reader_that_stops_reading_ends_a_long_listing_quietly(server: EmbeddedValkey) -> None:
    many = "\n".join(target(replica_id=replica(number)) for number in range(3000))
    assert typed("targets load - --redis", server.url, given=many).exit_code == 0
    ran = subprocess.run(
        ["sh", "-c", f"{FLEETPULSE} targets list --redis {server.url} | head -1"],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert ran.stdout.split()[0] == "REPLICA"
    assert ran.stderr == ""
