"""A walk through every command against a real stack, as a person or a script types them."""

import json
import os
import pty
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from select import select
from typing import Any, NamedTuple

import anyio
import anyio.to_thread
import pytest

from controller.up.stack import Stack
from probe.wire import ReplicaHealthStatus
from tests.fakes.operator import operating

FLEETPULSE = Path(sys.executable).with_name("fleetpulse")
WITHIN_S = 40.0
POLL_S = 0.1
CHAT = """\
name = "chat"
replicas = 2

[policy]
rollout_timeout_s = 60

[revision]
image = "chat:1"
environment = { SIM_LOAD_S = "0.2" }

[revision.health_check]
path = "/health"
interval_s = 1.0
max_wait_time_s = 1.0
"""
CHAT_2 = """\
name: chat
revision:
  image: chat:2
  environment: {SIM_LOAD_S: "0.2"}
  health_check: {path: /health, interval_s: 1, max_wait_time_s: 1}
"""
CHAT_NEVER = """\
{"name": "chat", "revision": {"image": "chat:3", "environment": {"SIM_LOAD_S": "600"},
 "health_check": {"path": "/health", "interval_s": 1, "max_wait_time_s": 1}}}
"""
FOREIGN = """\
{"name": "foreign", "revision": {"external": true, "health_check": {"path": "/health"}}}
"""


class Ran(NamedTuple):
    """What one command came to."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one object it printed."""
        (found,) = self.objects
        return found

    @property
    def objects(self) -> list[dict[str, Any]]:
        """Each line it printed, as an object."""
        return [json.loads(line) for line in self.out.splitlines()]


class Terminal:
    """Types commands at one stack."""

    def __init__(self, stack: Stack, directory: Path) -> None:
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith("FLEETPULSE_")
        } | {
            "FLEETPULSE_DATABASE_URL": stack.database_url,
            "FLEETPULSE_REDIS_URL": stack.redis_url,
            "FLEETPULSE_ALLOW": "127.0.0.0/8",
        }
        self._directory = directory

    async def type(self, *arguments: str, code: int = 0) -> Ran:
        """Run one command to its end, which must be `code` without a traceback."""
        with anyio.fail_after(WITHIN_S):
            done = await anyio.run_process(
                [FLEETPULSE, *arguments], env=self.environment, check=False
            )
        ran = Ran(done.returncode, done.stdout.decode(), done.stderr.decode())
        assert ran.code == code, (arguments, ran)
        assert "Traceback" not in ran.err
        return ran

    async def until(self, true: Callable[[Ran], bool], *arguments: str) -> Ran:
        """Repeat one command until `true` holds of it."""
        with anyio.fail_after(WITHIN_S):
            while not true(ran := await self.type(*arguments)):  # noqa: ASYNC110 - another process
                await anyio.sleep(POLL_S)
            return ran

    def file(self, name: str, text: str) -> str:
        """Write a file; return its path."""
        path = self._directory / name
        path.write_text(text)
        return str(path)


@pytest.fixture
def terminal(stack: Stack, tmp_path: Path) -> Terminal:
    return Terminal(stack, tmp_path)


def serves(replicas: int, revision: int) -> Callable[[Ran], bool]:
    """Return whether `deployment list --json` shows so many replicas of a revision, at rest."""

    def true(ran: Ran) -> bool:
        (found,) = ran.objects
        return (found["lifecycle"], found["ready"], found["active"], found["current"]) == (
            "ready",
            replicas,
            replicas,
            revision,
        )

    return true


@pytest.mark.slow
async def test_a_deployment_is_applied_rolled_scaled_and_deleted_by_commands(
    terminal: Terminal,
) -> None:
    chat = terminal.file("chat.toml", CHAT)
    assert (await terminal.type("db", "current", "--json")).json["current"] is not None
    assert "already at" in (await terminal.type("db", "upgrade")).out
    upgraded = (await terminal.type("db", "upgrade", "--json")).json
    assert upgraded["before"] == upgraded["after"]
    assert (await terminal.type("deployment", "list")).err == "no deployments\n"
    assert (await terminal.type("deployment", "list", "--json")).out == ""

    applied = (await terminal.type("deployment", "apply", "-f", chat, "--json")).json
    assert applied["changes"] == ["created", "added revision 1", "activated revision 1"]
    watched = await terminal.type("rollout", "watch", "chat")
    assert "outcome  promoted" in watched.out
    assert (await terminal.type("deployment", "apply", "-f", chat)).out == "chat: unchanged\n"

    added = await terminal.type(
        "revision", "add", "chat", "-f", terminal.file("2.yaml", CHAT_2), "--json"
    )
    assert (added.json["number"], added.json["activated"]) == (2, False)
    started = await terminal.type("rollout", "start", "chat", "2", "--watch")
    assert "outcome  promoted" in started.out
    assert "chat: p" in started.err, "off a terminal its steps are lines beside the output"
    again = await terminal.type("rollout", "start", "chat", "2", code=1)
    assert "revision 2" in again.err

    never = terminal.file("3.json", CHAT_NEVER)
    added = await terminal.type("revision", "add", "chat", "-f", never, "--auto-activate")
    assert added.out == "chat: revision 3, its rollout has started\n"
    aborted = await terminal.type("rollout", "abort", "chat", "--reason", "too slow", "--json")
    assert aborted.json["sub_step"] == "rolling_back"
    ended = await terminal.type("rollout", "watch", "chat", "--json", code=1)
    assert ended.objects[-1]["outcome"] == "aborted"
    rolled = (await terminal.type("rollout", "history", "chat", "--json")).objects
    assert [(one["from"], one["to"], one["outcome"]) for one in rolled] == [
        (2, 3, "aborted"),
        (1, 2, "promoted"),
        (None, 1, "promoted"),
    ]
    decided = await terminal.type("rollout", "history", "chat", "--rollout", rolled[1]["id"][:8])
    assert " promote " in decided.out, "the rule that ended it"
    roles = (await terminal.type("revision", "list", "chat", "--json")).objects
    assert [(one["number"], one["role"]) for one in roles] == [(3, None), (2, "current"), (1, None)]

    scaled = await terminal.type("deployment", "scale", "chat", "3", "--json")
    assert scaled.json["wanted"] == 3
    await terminal.until(serves(3, 2), "deployment", "list", "--json")
    shown = await terminal.type("deployment", "show", "chat")
    assert "too slow" in shown.out
    history = (await terminal.type("deployment", "show", "chat", "--json")).json["history"]
    assert history[0]["at_ms"] > 1_700_000_000_000

    assert (await terminal.type("deployment", "delete", "chat", "--json")).json["lifecycle"] in {
        "destroying",
        "destroyed",
    }
    await terminal.until(lambda ran: not ran.out, "deployment", "list", "--json")
    gone = await terminal.type("deployment", "show", "chat", code=1)
    assert gone.err == (
        "fleetpulse: there is no deployment 'chat'; see `fleetpulse deployment list`\n"
    )


async def test_a_foreign_replica_is_registered_probed_and_seen(
    stack: Stack, terminal: Terminal
) -> None:
    await terminal.type("deployment", "apply", "-f", terminal.file("f.json", FOREIGN))
    address = ("--host", "127.77.0.1", "--port", "9")
    registered = (await terminal.type("route", "register", "foreign", *address, "--json")).json
    replica_id = registered["id"]
    assert registered == {"id": replica_id, "address": "127.77.0.1:9", "stage": "warming_up"}
    twice = await terminal.type("route", "register", "foreign", *address, code=1)
    assert "has 127.77.0.1:9 already" in twice.err
    listed = await terminal.type("route", "list", "foreign")
    head, row = listed.out.splitlines()
    assert head.split()[0] == "ID"
    assert row.split()[0] == replica_id, "an id is whole, however narrow the terminal"
    (route,) = (await terminal.type("route", "list", "--json")).objects
    assert (route["id"], route["deployment"]) == (replica_id, "foreign")

    async with operating(stack) as operator:
        await operator.until(
            lambda _: is_probed(operator.sight.statuses, replica_id), within_s=WITHIN_S
        )
    refused = await terminal.type("status", replica_id, code=1)
    assert "CONNECT_REFUSED" in refused.out
    (target,) = (await terminal.type("targets", "list", "--json")).objects
    assert target["replica_host"] == "127.77.0.1"
    checked = await terminal.type("check", replica_id, "--json", code=1)
    assert checked.json["reason"] == "CONNECT_REFUSED"


def is_probed(statuses: Mapping[Any, ReplicaHealthStatus], replica_id: str) -> bool:
    return replica_id in statuses


class Screen:
    """A command on a terminal of 80 columns."""

    def __init__(self, *arguments: str, environment: dict[str, str]) -> None:
        self._master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [FLEETPULSE, *arguments],
            env=environment | {"COLUMNS": "80", "LINES": "20", "TERM": "xterm"},
            stdin=slave,
            stdout=slave,
            stderr=slave,
        )
        os.close(slave)

    def read_until(self, text: str) -> str:
        """Return what it shows, up to its end or to a quiet of 20 s when `text` does not come."""
        shown = ""
        while text not in shown and select([self._master], [], [], 20.0)[0]:
            try:
                shown += os.read(self._master, 4096).decode(errors="replace")
            except OSError:  # the other side is closed: it ended
                break
        return shown

    def close(self) -> None:
        """End it, if it has not."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._master)


@pytest.fixture
def quiet() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith(("FLEETPULSE_", "NO_COLOR"))}


@pytest.mark.parametrize(("variables", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_colours_are_for_terminals_and_no_color_takes_them_away(
    quiet: dict[str, str], variables: dict[str, str], *, coloured: bool
) -> None:
    screen = Screen("check", "http://127.0.0.1:1/", environment=quiet | variables)
    shown = screen.read_until("never shown")
    screen.close()
    assert "POLICY_DENIED" in shown
    assert ("\x1b[" in shown) is coloured


async def test_the_live_views_follow_and_end_with_ctrl_c(terminal: Terminal) -> None:
    """`status --watch` has nothing to tell but what it showed; a rollout goes on without us."""
    never = CHAT_NEVER.replace("chat:3", "chat:1")
    await terminal.type("deployment", "apply", "-f", terminal.file("never.json", never))
    for arguments, seen, code in (
        (("status", "--watch"), "Ctrl-C ends", 0),
        (("rollout", "watch", "chat"), "new, ready", 1),
    ):
        screen = Screen(*arguments, environment=terminal.environment)
        try:
            shown = await anyio.to_thread.run_sync(screen.read_until, seen)
            assert seen in shown
            screen.process.send_signal(signal.SIGINT)
            rest = await anyio.to_thread.run_sync(screen.read_until, "never shown")
            assert screen.process.wait(10) == code
        finally:
            screen.close()
        assert "Traceback" not in rest
        assert ("the rollout goes on" in rest) is (code == 1)


def test_up_in_a_directory_that_is_too_long_is_one_sentence(quiet: dict[str, str]) -> None:
    with tempfile.TemporaryDirectory(prefix="fp-") as directory:
        deep = Path(directory, "x" * 110)
        deep.mkdir()
        ran = subprocess.run(
            [FLEETPULSE, "up", "--for", "1"],
            env=quiet | {"TMPDIR": str(deep)},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert list(deep.iterdir()) == []
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "is too long for a unix socket (107 bytes): use a shorter directory" in ran.stderr
    assert len(ran.stderr.splitlines()) == 1
