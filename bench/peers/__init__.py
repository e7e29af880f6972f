"""Everybody who probes in this bench, by name."""

from collections.abc import Mapping
from typing import Final

from bench.case import Prober
from bench.peers import blackbox, envoy, floor, haproxy, naive, ours
from bench.running import Peer

PEERS: Final[Mapping[Prober, Peer]] = {
    Prober.FLOOR: floor.PEER,
    Prober.WIRE: ours.WIRE,
    Prober.PROBE: ours.PROBE,
    Prober.ENVOY: envoy.PEER,
    Prober.HAPROXY: haproxy.PEER,
    Prober.BLACKBOX: blackbox.PEER,
    Prober.AIOHTTP: naive.AIOHTTP,
    Prober.AIOHTTP_EACH: naive.AIOHTTP_EACH,
    Prober.HTTPX: naive.HTTPX,
}
