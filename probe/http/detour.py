"""The other way to ask: HTTP/2, and through a forward proxy; over httpx, a task per probe.

Called by the pool for the targets that need it, and tells the same outcomes by the same judge.
One transport per target, kept between probes, without what a client adds to it: no redirects, no
cookies, no environment. A name is resolved and judged here and its address dialled, unless a
proxy is to ask for it. A proxy that fails is our fault, not the replica's.
"""

import asyncio
import ssl
from collections.abc import Callable, Coroutine
from contextlib import suppress
from time import monotonic
from typing import Final, NamedTuple

import httpx

from probe.errors import WireError
from probe.health import Outcome
from probe.http.exchange import Journey, exchange, root_of
from probe.http.names import Resolved
from probe.http.place import Name, UnixPath
from probe.http.proxies import ForwardProxy
from probe.http.renewal import Renewal, due
from probe.http.request import Prepared, Step
from probe.http.resolver import Resolver
from probe.http.response import NOT_A_BYTE, Reply
from probe.http.roles import Judge, nobody
from probe.http.transport import ProxyTrouble, open_transport, request_for, said_by_proxy
from probe.reasons import OutcomeKind, Reason
from probe.schedule.scheduler import Check

FRESH_EVERY: Final = 10
"""Probes on one connection, so that a moved target cannot hide behind a kept one."""
KEPT_MAX: Final = 1000


class _StaleError(Exception):
    """A kept connection turned out closed before the replica could have seen the request."""


class _Kept(NamedTuple):
    """A transport between two probes."""

    transport: httpx.AsyncHTTPTransport
    host: str
    uses: int


class _Way:
    """What the detour keeps of one check."""

    __slots__ = ("journey", "kept", "prepared", "renew_at", "task")

    def __init__(self, prepared: Prepared, *, renew_at: float) -> None:
        self.prepared = prepared
        self.renew_at = renew_at
        self.kept: _Kept | None = None
        self.task: asyncio.Task[None] | None = None
        self.journey = Journey(has_tls=False, has_proxy=False)

    def renew(self, prepared: Prepared, renew_at: float) -> None:
        self.prepared, self.renew_at = prepared, renew_at


class Detour:
    """Implements `probe.sweep.Wire`. Must be made and used on one event loop."""

    def __init__(
        self,
        judge: Judge,
        *,
        loop: asyncio.AbstractEventLoop,
        max_open: int,
        resolver: Resolver | None = None,
        proxy: ForwardProxy | None = None,
    ) -> None:
        self.done: Callable[[Check, Outcome], None] = nobody
        self.max_open = max_open
        self._judge = judge
        self._renewal = Renewal(judge.admit)
        self._loop = loop
        self._resolver = resolver
        self._proxy = proxy
        self._ways: set[_Way] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"Detour(in_flight={len(self._tasks)}, kept={len(self._ways)})"

    @property
    def open_connections(self) -> int:
        """How many connections there are at most: in use, kept, and being closed."""
        return len(self._tasks) + len(self._ways)

    # Called by the pool.

    def start(self, check: Check, now: float) -> None:
        """Begin one probe; see `probe.sweep.Wire`."""
        way = check.connection
        if not isinstance(way, _Way):
            try:
                prepared = self._judge.admit(check.target)
            except WireError as error:  # targets are admitted when loaded: only a caller's slip
                self.done(check, self._judge.denied(str(error)))
                return
            way = check.connection = _Way(prepared, renew_at=due(check.target, now))
        elif now >= way.renew_at and (way.kept is None or way.kept.uses >= FRESH_EVERY):
            self._renewal.renew(way, check.target, now)
        prepared = way.prepared
        if prepared.refusal is not None:
            self.done(check, self._judge.denied(prepared.refusal))
        elif self.open_connections >= self.max_open and way.kept is None:
            self.done(check, self._judge.crowded(self.max_open))
        else:
            proxied = self._proxy is not None and self._proxy.covers(prepared.place)
            way.journey = Journey(has_tls=prepared.tls is not None, has_proxy=proxied)
            way.task = self._spawn(self._probe(check, way))

    def expire(self, check: Check, now: float) -> float | None:
        """Judge a probe whose deadline passed; see `probe.sweep.Wire`."""
        way = check.connection
        if not isinstance(way, _Way) or way.task is None:
            return None
        journey = way.journey
        limit = check.started_at + check.timeout_s
        if journey.phase in {"resolve", "connect"}:
            limit = min(limit, check.started_at + check.connect_timeout_s)
        if now < limit:
            return limit
        limit_s = limit - check.started_at
        if journey.has_proxy and not journey.reached:
            trouble = ProxyTrouble(f"no connection to the proxy within {limit_s:.1f} s")
            outcome = self._judge.broke(trouble, connect_s=limit_s, total_s=limit_s)
        else:
            outcome = self._judge.late(
                phase=journey.phase, received=journey.received, limit_s=limit_s
            )
        self._stop(way)
        self.done(check, outcome)
        return None

    def cancel(self, check: Check) -> None:
        """End the probe in flight without an outcome."""
        if isinstance(check.connection, _Way):
            self._stop(check.connection)

    def forget(self, check: Check) -> None:
        """Close the check's connection, in flight or idle."""
        way = check.connection
        if isinstance(way, _Way):
            self._stop(way)
            self._drop(way)
            check.connection = None

    def close(self) -> None:
        """Close every connection; those in flight end without an outcome."""
        for task in tuple(self._tasks):
            task.cancel()
        for way in tuple(self._ways):  # after it: these tasks close what is kept
            self._drop(way)

    # Inside.

    def _spawn(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _stop(self, way: _Way) -> None:
        if way.task is not None:
            way.task.cancel()
            way.task = None

    def _drop(self, way: _Way) -> None:
        self._ways.discard(way)
        if way.kept is not None:
            self._spawn(way.kept.transport.aclose())
            way.kept = None

    async def _probe(self, check: Check, way: _Way) -> None:
        try:
            outcome = await self._ask(check, way)
        except Exception as error:  # noqa: BLE001 - whatever it is, the sweep waits for an outcome
            outcome = self._judge.broke(error, **way.journey.times())
        way.task = None
        self.done(check, outcome)

    async def _ask(self, check: Check, way: _Way) -> Outcome:
        """Find the address, then ask; a kept connection may turn out closed for nothing, once."""
        place = way.prepared.place
        host = "localhost" if isinstance(place, UnixPath) else str(place)
        if isinstance(place, Name) and not way.journey.has_proxy:
            resolved = await self._resolve(place, way)
            if not resolved.addresses:
                fault = resolved.fault or Reason.DNS_TIMEOUT
                return self._judge.unresolved(fault, resolved.detail, total_s=way.journey.resolve_s)
            host = str(resolved.addresses[0])
        kept, way.kept = way.kept, None
        self._ways.discard(way)
        if kept is not None and (kept.host != host or kept.uses >= FRESH_EVERY):
            await kept.transport.aclose()
        elif kept is not None:
            with suppress(_StaleError):
                return await self._ask_on(check, way, kept)
        fresh = _Kept(self._new_transport(check, way), host, 0)
        return await self._ask_on(check, way, fresh)

    async def _resolve(self, name: Name, way: _Way) -> Resolved:
        if self._resolver is None:
            return Resolved((), Reason.POLICY_DENIED, f"{name}: this prober resolves no names")
        way.journey.phase = "resolve"
        answered: asyncio.Future[Resolved] = self._loop.create_future()

        def then(resolved: Resolved) -> None:
            if not answered.done():
                answered.set_result(resolved)

        known = self._resolver.resolve(name.text, way.prepared.port, then)
        resolved = known if known is not None else await answered
        way.journey.resolve_s = monotonic() - way.journey.began_at
        way.journey.phase = "connect"
        return resolved

    def _new_transport(self, check: Check, way: _Way) -> httpx.AsyncHTTPTransport:
        proxy = self._proxy if way.journey.has_proxy else None
        return open_transport(way.prepared, http2=check.target.http2, proxy=proxy)

    async def _ask_on(self, check: Check, way: _Way, on: _Kept) -> Outcome:
        """Ask every step on one transport, and keep that if it can carry the next probe."""
        keeps = False
        try:
            outcome, keeps = await self._steps(check, way, on)
        finally:
            if keeps and check.connection is way and len(self._ways) < KEPT_MAX:
                way.kept = on._replace(uses=on.uses + 1)
                self._ways.add(way)
            else:
                await on.transport.aclose()
        return outcome

    async def _steps(self, check: Check, way: _Way, on: _Kept) -> tuple[Outcome, bool]:
        journey, keeps = way.journey, False
        outcome = self._judge.denied("nothing is asked of it")
        for step in way.prepared.steps:
            request = request_for(way.prepared, step, on.host, journey)
            try:
                keep = step.content is not None
                reply = await exchange(on.transport, request, journey, keep=keep)
            except httpx.TransportError as error:
                if not journey.dialled:
                    raise _StaleError from error
                return self._broke(check, step, error, journey), False
            if reply is NOT_A_BYTE and not journey.dialled:
                raise _StaleError
            outcome, keeps = self._replied(check, step, reply, journey), reply.reusable
            if outcome.reason is Reason.AUTH_REJECTED:
                keeps = False  # perhaps a secret was rotated, and a new connection is given it
            if outcome.kind is not OutcomeKind.PASSED:
                break
        return outcome, keeps

    def _replied(self, check: Check, step: Step, reply: Reply, journey: Journey) -> Outcome:
        return self._judge.replied(
            step,
            reply,
            first_byte_s=max(0.0, journey.first_byte_at - journey.asked_at),
            **journey.times(),
        )

    def _broke(
        self, check: Check, step: Step, error: httpx.TransportError, journey: Journey
    ) -> Outcome:
        root = root_of(error)
        if isinstance(error, httpx.ProxyError):
            root = said_by_proxy(str(error))
        elif journey.has_proxy and not journey.reached:
            root = ProxyTrouble(f"the proxy cannot be reached: {root}")
        elif root is error and not isinstance(error, httpx.ProtocolError):
            if journey.phase == "reply":
                return self._replied(check, step, NOT_A_BYTE, journey)
            if journey.phase == "tls":
                root = ssl.SSLEOFError()
        return self._judge.broke(root, **journey.times())
