"""Other probers over the farm of replies: Debian's HAProxy and blackbox_exporter, and ours.

Each says of every kind of reply whether it passed, once by the status alone and once with a body
that must contain `BODY_TEXT`. All have the same two seconds for it, and no other option than that.
"""

import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Final
from uuid import UUID

import anyio
import httpx
import msgspec

from controller.child import Child
from probe.check import StatusJudge
from probe.commands.once import probe_once
from probe.health import Outcome
from probe.http.policy import ConnectPolicy
from probe.settings import Settings
from probe.wire import HttpCheck, OutcomeKind, ReplicaId, ReplicaProbeTarget
from tests.fakes.replies import BODY_TEXT, TABLE
from tests.fakes.services import program

HOST: Final = "127.0.0.1"
PATH: Final = "/health"
TIMEOUT_S: Final = 2.0
HANGS_AFTER_S: Final = 5.0
START_WITHIN_S: Final = 10.0
AT_ONCE: Final = 20


class Mode(StrEnum):
    """What is asked of a reply."""

    STATUS = "status"
    """A status of 200-299."""
    BODY = "body"
    """That, and a text in the body."""


class Verdict(StrEnum):
    """What a prober made of a reply."""

    PASSED = "passed"
    FAILED = "failed"
    HANGS = "hangs"
    """No answer within 5 s, with a timeout of 2 s."""


Verdicts = Mapping[tuple[str, Mode], Verdict]
"""By kind and mode."""


def _verdict(passed: bool) -> Verdict:  # noqa: FBT001 - the answer itself
    return Verdict.PASSED if passed else Verdict.FAILED


_HAPROXY: Final = """\
global
  stats socket {control} mode 600 level user
defaults
  mode http
  timeout connect {ms}
  timeout client {ms}
  timeout server {ms}
  timeout check {ms}
  default-server check inter {ms} fall 1 rise 1
"""
_HAPROXY_BACKEND: Final = """\
backend {mode}
  option httpchk
  http-check send meth GET uri {path} ver HTTP/1.1 hdr Host replica
  http-check expect status 200-299
"""
_CHECKED: Final = re.compile(r"(?!INI|\*)[A-Z0-9]+")
"""A check that has ended: not the state before the first one, not one under way."""
_LISTENING: Final = re.compile(r'msg="Listening on" address=(\S+)')


@contextmanager
def farm_process() -> Iterator[Mapping[str, int]]:
    """Serve every kind of reply in a process of its own; give their ports."""
    command = [sys.executable, "-m", "tests.fakes.farm_process"]
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        ports: Mapping[str, int] = json.loads(process.stdout.readline())
        yield ports
        process.communicate(timeout=START_WITHIN_S)  # ends it: its standard input is closed


async def ours(ports: Mapping[str, int]) -> Verdicts:
    """Ask as `fleetpulse check` does."""
    judge = StatusJudge(ConnectPolicy.of([f"{HOST}/32"]))
    found: dict[tuple[str, Mode], Verdict] = {}

    async def ask(name: str, mode: Mode) -> None:
        body = (HttpCheck(body_contains=BODY_TEXT),)
        target = ReplicaProbeTarget(
            replica_id=ReplicaId(str(UUID(int=ports[name]))),
            replica_host=HOST,
            inference_port=ports[name],
            health_path=PATH,
            timeout_s=TIMEOUT_S,
            connect_timeout_s=TIMEOUT_S,
            checks=body if mode is Mode.BODY else "http",
        )
        outcome: Outcome = await probe_once(target, judge, Settings())
        assert outcome.kind is not OutcomeKind.PROBE_ERROR, outcome
        found[name, mode] = _verdict(outcome.kind is OutcomeKind.PASSED)

    async with anyio.create_task_group() as group:
        for name in TABLE:
            for mode in Mode:
                group.start_soon(ask, name, mode)
    return found


async def haproxy(ports: Mapping[str, int], directory: Path) -> Verdicts:
    """Let HAProxy check every kind as a server, until each check has ended."""
    control, config = directory / "control", directory / "haproxy.cfg"
    parts = [_HAPROXY.format(control=control, ms=round(TIMEOUT_S * 1000))]
    for mode in Mode:
        parts.append(_HAPROXY_BACKEND.format(mode=mode, path=PATH))
        if mode is Mode.BODY:
            parts.append(f"  http-check expect string {BODY_TEXT}\n")
        parts += [f"  server {name} {HOST}:{ports[name]}\n" for name in TABLE]
    config.write_text("".join(parts))
    child = Child(
        [str(program("haproxy", package="haproxy")), "-db", "-f", str(config)],
        log_path=directory / "haproxy.log",
    )
    child.start()
    try:
        with anyio.fail_after(START_WITHIN_S + TIMEOUT_S):
            while True:
                rows = await anyio.to_thread.run_sync(_haproxy_states, control)
                if len(rows) == len(TABLE) * len(Mode) and all(rows.values()):
                    return {key: _verdict(text.startswith("L7OK")) for key, text in rows.items()}
                await anyio.sleep(0.1)
    finally:
        child.end()


def _haproxy_states(control: Path) -> dict[tuple[str, Mode], str]:
    """Return what each server's last check came to; empty where none has ended."""
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(START_WITHIN_S)
            client.connect(str(control))
            client.sendall(b"show stat json\n")
            with client.makefile("rb") as answer:
                rows = json.loads(answer.read())
    except (FileNotFoundError, ConnectionRefusedError):
        return {}
    states = {}
    for row in rows:
        fields = {field["field"]["name"]: field["value"]["value"] for field in row}
        if fields["svname"] in TABLE:
            text = fields.get("check_status", "")
            states[fields["svname"], Mode(fields["pxname"])] = text if _CHECKED.match(text) else ""
    return states


async def blackbox(ports: Mapping[str, int], directory: Path) -> Verdicts:
    """Let blackbox_exporter probe every kind once."""
    config = directory / "blackbox.yml"
    http = {"follow_redirects": False, "preferred_ip_protocol": "ip4"}
    needed = http | {"fail_if_body_not_matches_regexp": [BODY_TEXT]}
    modules = {
        mode: {"prober": "http", "timeout": f"{TIMEOUT_S}s", "http": options}
        for mode, options in ((Mode.STATUS, http), (Mode.BODY, needed))
    }
    config.write_bytes(msgspec.json.encode({"modules": modules}))  # JSON is YAML
    name = "prometheus-blackbox-exporter"
    child = Child(
        [
            str(program(name, package=name)),
            f"--config.file={config}",
            f"--web.listen-address={HOST}:0",
        ],
        log_path=directory / "blackbox.log",
    )
    child.start()
    try:
        address = await _address(child)
        async with httpx.AsyncClient(base_url=f"http://{address}", trust_env=False) as client:
            return await _blackbox_answers(client, ports)
    finally:
        child.end()


async def _blackbox_answers(client: httpx.AsyncClient, ports: Mapping[str, int]) -> Verdicts:
    found: dict[tuple[str, Mode], Verdict] = {}
    room = anyio.CapacityLimiter(AT_ONCE)

    async def ask(name: str, mode: Mode) -> None:
        asked = {"module": mode.value, "target": f"http://{HOST}:{ports[name]}{PATH}"}
        try:
            async with room:
                answer = await client.get("/probe", params=asked, timeout=HANGS_AFTER_S)
        except httpx.ReadTimeout:
            found[name, mode] = Verdict.HANGS
        else:
            found[name, mode] = _verdict("\nprobe_success 1\n" in answer.text)

    async with anyio.create_task_group() as group:
        for name in TABLE:
            for mode in Mode:
                group.start_soon(ask, name, mode)
    return found


async def _address(child: Child) -> str:
    with anyio.fail_after(START_WITHIN_S):
        while (said := _LISTENING.search(child.log_path.read_text())) is None:
            assert child.pid is not None, child.log_path.read_text()
            await anyio.sleep(0.05)
    return said[1]
