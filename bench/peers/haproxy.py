"""HAProxy's `option httpchk`: always a new connection for each check."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from bench.case import Regime
from bench.farm import hosts
from bench.running import Peer, Place, Process, Running, started

_CONFIG: Final = """\
global
  nbthread 1
defaults
  mode http
  timeout connect 5s
  timeout client 5s
  timeout server 5s
  timeout check 5s
frontend nobody
  bind unix@{socket}
  default_backend fleet
backend fleet
  option httpchk
  http-check send meth GET uri /health ver HTTP/1.1 hdr Host bench
  http-check expect status 200-299
  default-server check inter {interval_ms}ms fall 1 rise 1
"""


def _missing() -> str | None:
    found = shutil.which("haproxy")
    return None if found else "HAProxy is not installed: apt-get install haproxy"


@contextmanager
def _run(place: Place) -> Iterator[Running]:
    case, port = place.case, place.farm.port
    config = place.directory / "haproxy.cfg"
    head = _CONFIG.format(
        socket=place.directory / "nobody", interval_ms=round(case.interval_s * 1000)
    )
    servers = (f"  server s{n} {host}:{port}\n" for n, host in enumerate(hosts(case.targets)))
    config.write_text(head + "".join(servers))
    with started(place, [str(shutil.which("haproxy")), "-db", "-f", str(config)]) as child:
        yield Process(child)


PEER: Final = Peer("`option httpchk` on one thread", _run, _missing, (Regime.NEW,))
