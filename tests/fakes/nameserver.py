"""A name server on loopback, as honest or as hostile as a test wants."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from ipaddress import ip_address
from typing import Final, cast

from dnslib import AAAA, QTYPE, RCODE, RR, A, DNSRecord

SILENT: Final = "silent"
"""Asked, and never answers: a black hole."""
NXDOMAIN: Final = "nxdomain"
SERVFAIL: Final = "servfail"
REFUSED: Final = "refused"

Answer = Sequence[str] | str
"""Addresses, or one of the words above."""


class NameServer(asyncio.DatagramProtocol):
    """Answers by `zone`, and what is not in it by `otherwise`; counts questions by name."""

    def __init__(self) -> None:
        self.zone: dict[str, Answer] = {}
        self.otherwise: Callable[[str], Answer] = lambda _name: NXDOMAIN
        self.ttl_s = 30
        self.asked: Counter[str] = Counter()
        self.address = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, peer: tuple[str, int]) -> None:
        question = DNSRecord.parse(data)
        name = str(question.q.qname).rstrip(".")
        family = QTYPE[question.q.qtype]
        if family == "A":
            self.asked[name] += 1
        answer = self.zone[name] if name in self.zone else self.otherwise(f"{name} {family}")
        if answer == SILENT:
            return
        reply = question.reply()
        if isinstance(answer, str):
            reply.header.rcode = getattr(RCODE, answer.upper())
        else:
            for address in answer:
                if (":" in address) == (family == "AAAA"):
                    octets = tuple(ip_address(address).packed)
                    rdata = AAAA(octets) if family == "AAAA" else A(octets)
                    reply.add_answer(RR(name, question.q.qtype, ttl=self.ttl_s, rdata=rdata))
        self._transport.sendto(reply.pack(), peer)


@asynccontextmanager
async def name_server() -> AsyncIterator[NameServer]:
    """Run a name server on a free port; `address` is where."""
    loop = asyncio.get_running_loop()
    transport, server = await loop.create_datagram_endpoint(NameServer, local_addr=("127.0.0.1", 0))
    host, port = transport.get_extra_info("sockname")[:2]
    server.address = f"{host}:{port}"
    try:
        yield server
    finally:
        transport.close()
