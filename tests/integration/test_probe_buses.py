"""The prober as a process on buses of other shapes: a cluster, TLS with a password, hashes."""

import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest
from redis import Redis

from controller.embedded import EmbeddedValkey
from probe.wire import Keys, encode
from tests.fakes.bus_servers import Fleet
from tests.fakes.entries import replica, target
from tests.fakes.farm import Farm

KEYS = Keys()
_PROGRAM = "from controller.cli import main; main()"


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with tempfile.TemporaryDirectory(prefix="fp-") as directory:
        running = Fleet(Path(directory))
        yield running
        running.close()


def typed(*words: str, environ: Mapping[str, str], given: bytes = b"") -> str:
    """Run a command to its end; return what it printed."""
    own = {"FLEETPULSE_ALLOW": "127.0.0.0/8", "FLEETPULSE_PROBE__METRICS": "127.0.0.1:0"}
    ran = subprocess.run(
        [sys.executable, "-c", _PROGRAM, *words],
        env={**os.environ, **own, **environ},
        input=given,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr.decode()[-2000:]
    return ran.stdout.decode()


async def walked(environ: Mapping[str, str], *words: str, given: bytes = b"") -> str:
    """Do the same on a thread, so that the replicas of the test can answer."""
    return await anyio.to_thread.run_sync(
        lambda: typed(*words, environ=environ, given=given), abandon_on_cancel=True
    )


@pytest.fixture
async def farm() -> AsyncIterator[Farm]:
    async with Farm() as planted:
        yield planted


@pytest.mark.xdist_group("cluster")
@pytest.mark.parametrize("name", ["cluster", "tls"])
async def test_a_prober_finds_its_targets_and_writes_what_it_found(
    name: str, fleet: Fleet, farm: Farm
) -> None:
    served = fleet.bus(name)
    environ = {
        "FLEETPULSE_REDIS_URL": served.url,
        "FLEETPULSE_PROBE__BUS_CA_FILE": served.files.ca,
        "FLEETPULSE_PROBE__BUS_CERTIFICATE_FILE": served.files.certificate,
        "FLEETPULSE_PROBE__BUS_KEY_FILE": served.files.key,
    }
    plots = [farm.plant("ok200") for _ in range(5)]
    targets = [
        target(n, replica_host=plot.host, inference_port=plot.port) for n, plot in enumerate(plots)
    ]
    given = b"\n".join(map(encode, targets))
    assert "loaded 5" in await walked(environ, "targets", "load", "-", given=given)
    await walked(environ, "probe", "--once")
    assert (await walked(environ, "status", "--json")).count('"healthy":true') == 5


@pytest.fixture
def server() -> Iterator[EmbeddedValkey]:
    with tempfile.TemporaryDirectory(prefix="fp-") as directory:
        running = EmbeddedValkey(Path(directory, "bus"))
        running.start()
        yield running
        running.stop()


async def test_a_prober_stands_in_for_the_observer_of_the_other_layout(
    server: EmbeddedValkey, farm: Farm
) -> None:
    plot = farm.plant("ok200")
    environ = {"FLEETPULSE_REDIS_URL": server.url, "FLEETPULSE_PROBE__BUS_LAYOUT": "hash"}
    fields = {"replica_id": replica(1), "replica_host": plot.host, "health_path": "/health"}
    with Redis.from_url(server.url) as client:
        key = KEYS.target(replica(1))
        client.hset(key, mapping={**fields, "inference_port": str(plot.port)})
        await walked(environ, "probe", "--once")
        found: Any = client.hgetall(KEYS.status(replica(1)))
        assert (found[b"healthy"], found[b"consecutive_failures"]) == (b"1", b"0")
        now: Any = client.time()
        assert int(found[b"last_check"]) == pytest.approx(now[0], abs=30)
        left: Any = client.ttl(KEYS.status(replica(1)))
        assert 0 < left <= 120
        assert '"healthy":true' in await walked(environ, "status", "--json")
