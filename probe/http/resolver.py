"""Names to addresses, within a second, whatever the name servers do.

Called by the wire with plain calls. Over c-ares, which waits for many answers on one socket;
`getaddrinfo` on a thread pool made a good name wait 63.9 s behind 64 dead ones. A question that
is not answered soon gives up its place among the few asked at once, so that dead names do not
delay good ones. Names are absolute and come from name servers alone: no search list, no
`/etc/hosts`.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from aiodns import DNSResolver, error, query_type_map

from probe.http.names import TTL_MAX_S, TTL_MIN_S, Names, Resolved
from probe.http.place import Address
from probe.http.policy import ConnectPolicy

if TYPE_CHECKING:
    from pycares import ARecordData, DNSResult

ASKED_MAX: Final = 64
"""Questions that are young and not yet answered."""
OLD_MAX: Final = 512
"""Questions that gave up their place and may still be answered."""
QUESTIONS_MAX: Final = 4096
"""Those that wait to be asked included."""
YOUNG_S: Final = 0.1
"""A name server of a data centre answers in 1 ms, one across the world in 100."""
STALE_AFTER_S: Final = 0.25
"""How long a probe waits for news of a name when an old answer could stand in."""
GIVE_UP_S: Final = 0.95
"""Less than a second by the timer's step and a little."""
STEP_S: Final = 0.025
TRY_S: Final = 0.4
TRIES: Final = 2

Then = Callable[[Resolved], None]
FAMILIES: Final = ("A", "AAAA")
_ADDRESS_RECORDS: Final = frozenset(query_type_map[family] for family in FAMILIES)
_SILENT: Final = "no answer of the name servers"
_GONE: Final = frozenset({error.ARES_ENOTFOUND, error.ARES_EBADNAME})


class _Heard(NamedTuple):
    """What came back for one family of addresses."""

    addresses: tuple[Address, ...] = ()
    ttl_s: float = TTL_MAX_S
    gone: bool = False
    failure: str = ""


class _Question:
    """One name being resolved, and who waits for it."""

    __slots__ = ("began_at", "give_up_at", "heard", "is_old", "name", "waiting")

    def __init__(self, name: str, give_up_at: float) -> None:
        self.name = name
        self.give_up_at = give_up_at
        self.began_at: float | None = None
        self.is_old = False
        self.heard: list[_Heard] = []
        self.waiting: list[tuple[int, Then]] = []


class Resolver:
    """Resolves names for one event loop, and judges every answer by the policy."""

    def __init__(
        self,
        policy: ConnectPolicy,
        *,
        loop: asyncio.AbstractEventLoop,
        nameservers: Iterable[str] = (),
        ttl_min_s: float = TTL_MIN_S,
    ) -> None:
        self.names = Names(policy, ttl_min_s=ttl_min_s)
        self._loop = loop
        self._nameservers = tuple(nameservers)
        self._servers: DNSResolver | None = None
        self._former: DNSResolver | None = None
        self._servers_since = 0.0
        self._questions: dict[str, _Question] = {}
        self._queue: deque[_Question] = deque()
        self._doubtful: deque[_Question] = deque()
        self._young = 0
        self._old = 0
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"Resolver({len(self.names)} names, {len(self._questions)} being asked)"

    def resolve(self, name: str, port: int, then: Then) -> Resolved | None:
        """Return what `name` may be dialled at; None when `then` will be told, within a second."""
        now = self._loop.time()
        known = self.names.look(name, port, now)
        if known is not None:
            return known
        question = self._questions.get(name)
        if question is None:
            if len(self._questions) >= QUESTIONS_MAX:
                return self.names.tell(name, port, now)
            question = self._ask(name, now)
        question.waiting.append((port, then))
        return None

    async def aclose(self) -> None:
        """Give up every question; nobody is told any more."""
        for question in self._questions.values():
            question.waiting.clear()
        self._questions.clear()
        self._queue.clear()
        self._doubtful.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for servers in (self._servers, self._former):
            if servers is not None:
                await servers.close()
        self._servers = self._former = None

    def _ask(self, name: str, now: float) -> _Question:
        patience_s = STALE_AFTER_S if self.names.has_stale(name, now) else GIVE_UP_S
        question = self._questions[name] = _Question(name, now + patience_s)
        (self._doubtful if self.names.has_failed(name) else self._queue).append(question)
        self._begin_next(now)
        if self._timer is None:
            self._timer = self._loop.call_later(STEP_S, self._step)
        return question

    def _begin_next(self, now: float) -> None:
        """Ask what waits while there is room; names that failed before come last."""
        while self._young < ASKED_MAX and (self._queue or self._doubtful):
            question = (self._queue or self._doubtful).popleft()
            if self._questions.get(question.name) is not question or now >= question.give_up_at:
                continue  # given up while it waited, or about to be
            question.began_at = now
            self._young += 1
            servers = self._fresh_servers(now)
            for family in FAMILIES:
                asked = servers.query_dns(question.name, family)
                asked.add_done_callback(partial(self._answered, question))

    def _fresh_servers(self, now: float) -> DNSResolver:
        """Return the way to the name servers, made anew each minute: c-ares has a memory too.

        It believes an answer as long as its TTL says, an hour even. What was asked over the old
        one is still answered.
        """
        if self._servers is None or now - self._servers_since >= TTL_MAX_S:
            self._former = self._servers
            self._servers = DNSResolver(
                self._nameservers or None, loop=self._loop, timeout=TRY_S, tries=TRIES
            )
            self._servers_since = now
        return self._servers

    def _answered(self, question: _Question, asked: "asyncio.Future[DNSResult]") -> None:
        if asked.cancelled():
            return
        question.heard.append(_heard(asked))
        if len(question.heard) < len(FAMILIES):
            return
        if self._questions.get(question.name) is question:
            self._conclude(question)
        elif self._questions.get(question.name) is None:
            self._learn(question)  # too late for those who waited, and yet the newest there is

    def _conclude(self, question: _Question) -> None:
        """Remember what was heard, and tell who waits."""
        del self._questions[question.name]
        if question.is_old:
            self._old -= 1
        elif question.began_at is not None:
            self._young -= 1
        if question.began_at is not None:  # else it was never asked: that says nothing of the name
            self._learn(question)
        now = self._loop.time()
        waiting, question.waiting = question.waiting, []
        for port, then in waiting:
            then(self.names.tell(question.name, port, now))
        self._begin_next(now)

    def _learn(self, question: _Question) -> None:
        """Remember what the two families' answers come to.

        A name is gone only when both were answered and none has an address: some servers say that
        there is no such name when asked for the family that they do not know (RFC 4074).
        """
        name, heard, now = question.name, question.heard, self._loop.time()
        addresses = tuple(address for each in heard for address in each.addresses)
        failure = next((each.failure for each in heard if each.failure), "")
        if addresses:
            self.names.found(name, addresses, min(each.ttl_s for each in heard), now)
        elif failure or len(heard) < len(FAMILIES):
            self.names.failed(name, failure or _SILENT, now)
        elif any(each.gone for each in heard):
            self.names.gone(name, "no such name", now)
        else:
            self.names.gone(name, "the name has no address", now)

    def _step(self) -> None:
        """Give up what took too long, and take places from what takes long."""
        now = self._loop.time()
        for question in tuple(self._questions.values()):
            began_at = question.began_at
            late = began_at is not None and now - began_at >= YOUNG_S
            if (late and any(each.addresses for each in question.heard)) or (
                now >= question.give_up_at
            ):
                self._conclude(question)  # with one family, or with nothing
            elif late and not question.is_old and self._old < OLD_MAX:
                question.is_old = True
                self._young -= 1
                self._old += 1
        self._begin_next(now)
        again = bool(self._questions)
        self._timer = self._loop.call_later(STEP_S, self._step) if again else None


def _heard(asked: "asyncio.Future[DNSResult]") -> _Heard:
    """Read one family's answer; whoever owns the records, their addresses will be judged."""
    problem = asked.exception()
    if isinstance(problem, error.DNSError):
        code, text = problem.args
        if code == error.ARES_ENODATA:
            return _Heard()
        if code in _GONE:
            return _Heard(gone=True)
        return _Heard(failure=_SILENT if code == error.ARES_ETIMEOUT else text)
    if problem is not None:
        return _Heard(failure=str(problem))
    answer = asked.result().answer
    data = [cast("ARecordData", each.data) for each in answer if each.type in _ADDRESS_RECORDS]
    return _Heard(
        tuple(ip_address(each.addr) for each in data),
        min((float(each.ttl) for each in answer), default=TTL_MAX_S),
    )
