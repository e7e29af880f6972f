"""Prometheus' blackbox_exporter: it probes when it is scraped, so something has to scrape it."""

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from bench.case import Regime
from bench.running import Peer, Place, Process, Running, started
from controller.child import Child
from controller.embedded import free_port

_NAME: Final = "prometheus-blackbox-exporter"
_CONFIG: Final = """\
modules:
  http_2xx:
    prober: http
    timeout: 5s
    http:
      preferred_ip_protocol: ip4
      follow_redirects: false
"""


def _missing() -> str | None:
    found = shutil.which(_NAME)
    return None if found else f"blackbox_exporter is not installed: apt-get install {_NAME}"


class _Blackbox(Process):
    """The exporter, useless without its scraper."""

    def __init__(self, child: Child, scraper: Child) -> None:
        super().__init__(child)
        self._scraper = Process(scraper)

    def check(self) -> None:
        super().check()
        self._scraper.check()


@contextmanager
def _run(place: Place) -> Iterator[Running]:
    """Run the exporter on the prober's core; its scraper runs with the farm, and is not counted."""
    case, port = place.case, free_port()
    config = place.directory / "blackbox.yml"
    config.write_text(_CONFIG)
    command = [str(shutil.which(_NAME)), f"--config.file={config}", "--log.level=error"]
    command += [f"--web.listen-address=127.0.0.1:{port}"]
    scrape = [sys.executable, "-m", "bench.scrape", str(case.targets)]
    scrape += [str(case.interval_s), str(port), str(place.farm.port)]
    with (
        started(place, command) as child,
        started(place, scrape, prober=False, name="scrape") as scraper,
    ):
        yield _Blackbox(child, scraper)


PEER: Final = Peer(
    "one scrape a probe; what scrapes it is not counted", _run, _missing, (Regime.NEW,)
)
