"""A canary in every secret: it goes to the replica, and nowhere else."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

import pytest
from redis.asyncio import Redis

from controller.embedded import EmbeddedValkey
from probe.bus.targets import TargetFeed
from probe.specs import HttpCheck
from probe.wire import OutcomeKind, Reason, ReplicaProbeTarget
from tests.fakes.entries import replica
from tests.fakes.entries import target as entry
from tests.fakes.farm import Farm, Plot
from tests.fakes.prober import ProberProcess, status_of, until

CANARIES: Final = ("c4n4ry-env-7d1e", "c4n4ry-file-90ab", "c4n4ry-proxy-33cc", "c4n4ry-plain-5f5f")
ENV, FILE, PROXY, PLAIN = CANARIES
SECRETS: Final = {"Authorization": "env:FLEETPULSE_SECRET_TOKEN", "X-Key": "file:team/key"}
MOODS: Final = ("garbage", "status", "header", "body", "close")
"""How a hostile replica gives back what it was sent."""


async def _echo(mood: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    lines = b" ".join(head.split(b"\r\n")[1:])
    match mood:
        case "garbage":
            writer.write(ENV.encode() + lines)
        case "status":
            writer.write(b"HTTP/1.1 500 " + lines + b"\r\nContent-Length: 0\r\n\r\n")
        case "header":
            writer.write(b"HTTP/1.1 200 OK\r\nX-Got: " + lines + b"\r\nContent-Length: 0\r\n\r\n")
        case "body":
            length = f"HTTP/1.1 200 OK\r\nContent-Length: {len(lines)}\r\n\r\n"
            writer.write(length.encode() + lines)
        case _:
            writer.write(lines)
    writer.close()


@asynccontextmanager
async def echoing(mood: str) -> AsyncIterator[Plot]:
    server = await asyncio.start_server(lambda r, w: _echo(mood, r, w), "127.0.0.1", 0)
    try:
        yield Plot(*server.sockets[0].getsockname())
    finally:
        server.close()


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "secrets" / "team").mkdir(parents=True)
    (tmp_path / "secrets" / "team" / "key").write_text(f"{FILE}\n", encoding="utf-8")
    monkeypatch.setenv("FLEETPULSE_SECRET_TOKEN", ENV)
    monkeypatch.setenv("FLEETPULSE_SECRET_PROXY", f"http://ops:{PROXY}@127.0.0.1:1")
    path = tmp_path / "probe.toml"
    path.write_text(
        f'[probe]\nsecrets_directory = "{tmp_path / "secrets"}"\n'
        f'proxy = "env:FLEETPULSE_SECRET_PROXY"\nproxy_for = ["127.200.0.0/16"]\n',
        encoding="utf-8",
    )
    return path


def asked(number: int, plot: Plot, **fields: object) -> ReplicaProbeTarget:
    return entry(number, replica_host=plot.host, inference_port=plot.port, interval_s=0.2, **fields)


async def everything_on(client: Redis) -> str:
    """Return all that the prober wrote to the bus."""
    said: list[object] = []
    async for key in client.scan_iter():
        kind = str(await client.type(key))
        if key.startswith(b"route_probe:"):
            continue  # what the test wrote itself
        if "string" in kind:
            said.append(await client.get(key))
        elif "stream" in kind:
            said.append(await client.xrange(key))
    return repr(said)


async def test_secret_goes_to_the_replica_and_nowhere_else(
    bus: EmbeddedValkey, config: Path, tmp_path: Path
) -> None:
    client = Redis.from_url(bus.url)
    log = tmp_path / "prober.log"
    checks = (HttpCheck(body_contains="absent", headers={"X-Got": "absent"}),)
    async with Farm() as farm, AsyncExitStack() as stack:
        good = farm.plant("ok200")
        plots = [await stack.enter_async_context(echoing(mood)) for mood in MOODS]
        targets = [asked(0, good, headers=SECRETS)]
        for number, plot in enumerate(plots, start=1):
            targets.append(asked(number, plot, headers=SECRETS))
            targets.append(asked(number + 100, plot, headers=SECRETS, checks=checks))
        targets.append(asked(200, good, headers={"Authorization": PLAIN}))
        targets.append(asked(201, good, headers={"Authorization": f"env:{PLAIN}"}))
        targets.append(asked(202, Plot("127.200.0.1", 80), headers=SECRETS))
        await TargetFeed(client).load(targets)
        async with ProberProcess.running(bus.url, log, "--config", str(config)) as prober:
            refused = {replica(200), replica(201)}
            watched = [each for each in targets if each.replica_id not in refused]

            async def all_probed() -> bool:
                return all([await status_of(client, each.replica_id) for each in watched])

            await until(all_probed)
            passed = await status_of(client, replica(0))
            assert passed is not None
            assert passed.outcome is OutcomeKind.PASSED
            away = await status_of(client, replica(202))
            assert away is not None
            assert away.reason is Reason.LOCAL_NETWORK  # the proxy is not there
            found = [await prober.get("/metrics"), await everything_on(client)]
            assert await prober.end() == 0
        head = farm.heads[good.host].decode()
        assert f"Authorization: {ENV}" in head
        assert f"X-Key: {FILE}" in head
    found.append(prober.said())
    assert "target_rejected" in found[-1]
    found.append(shown(config))
    assert [canary for canary in CANARIES for text in found if canary in text] == []
    await client.aclose()


def shown(config: Path) -> str:
    """Return what `--check-config` prints."""
    done = subprocess.run(
        [sys.executable, "-m", "probe", "--config", str(config), "--check-config"],
        check=True,
        capture_output=True,
        text=True,
        timeout=30,
    )
    return done.stdout + done.stderr
