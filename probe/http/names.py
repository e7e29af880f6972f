"""What names resolved to, how long that may be believed, and what of it may be dialled.

Pure: told of answers by the resolver, with its `now`. Only addresses that the policy allows come
out, and of an answer with one refused address none does: a name server that mixes allowed and
forbidden addresses (rebinding) gets nothing dialled.
"""

from dataclasses import dataclass, field
from math import inf
from typing import Final, NamedTuple

from probe.http.place import Address
from probe.http.policy import ConnectPolicy
from probe.reasons import Reason

TTL_MIN_S: Final = 5.0
"""Shorter ones would make the name server part of every probe; also how long a failure lasts."""
TTL_MAX_S: Final = 60.0
"""A replica that has moved is found after a minute, whatever its name server promised."""
STALE_S: Final = 3600.0
"""While the name servers fail, an answer of the last hour is better than none."""
NAMES_MAX: Final = 65_536
ADDRESSES_MAX: Final = 64
"""In one answer. A DNS message could hold 4,000, and each is judged in 10 us."""


class Resolved(NamedTuple):
    """What a name may be dialled at, or why it may not."""

    addresses: tuple[Address, ...]
    """All allowed by the policy, IPv4 first, in the order of the answer."""
    fault: Reason | None = None
    detail: str = ""


@dataclass(slots=True)
class _Known:
    """What is known of one name."""

    addresses: tuple[Address, ...] = ()
    good_until: float = -inf
    stale_until: float = -inf
    fault: Reason | None = None
    detail: str = ""
    judged: dict[int, Resolved] = field(default_factory=dict)
    """By port: what came of judging the addresses."""


class Names:
    """A bounded memory of names. `now` is monotonic seconds."""

    def __init__(self, policy: ConnectPolicy, *, ttl_min_s: float = TTL_MIN_S) -> None:
        self._policy = policy
        self._ttl_min_s = ttl_min_s
        self._known: dict[str, _Known] = {}

    def __len__(self) -> int:
        return len(self._known)

    def look(self, name: str, port: int, now: float) -> Resolved | None:
        """Return what is known of `name`, or None when it is time to ask."""
        known = self._known.get(name)
        if known is None or now >= known.good_until:
            return None
        return self._say(name, known, port, now)

    def has_failed(self, name: str) -> bool:
        """Tell whether the last question for `name` stayed without an answer."""
        known = self._known.get(name)
        return known is not None and known.fault is Reason.DNS_TIMEOUT

    def has_stale(self, name: str, now: float) -> bool:
        """Tell whether an old answer could stand in for a new one."""
        known = self._known.get(name)
        return known is not None and bool(known.addresses) and now < known.stale_until

    def found(self, name: str, addresses: tuple[Address, ...], ttl_s: float, now: float) -> None:
        """Remember an answer; it takes the place of all that was known."""
        good_until = now + min(max(ttl_s, self._ttl_min_s), TTL_MAX_S)
        self._keep(name, _Known(addresses, good_until, now + STALE_S))

    def gone(self, name: str, detail: str, now: float) -> None:
        """Remember that `name` leads nowhere: that ends an old answer, too."""
        good_until = now + self._ttl_min_s
        self._keep(name, _Known((), good_until, fault=Reason.DNS_FAILED, detail=detail))

    def failed(self, name: str, detail: str, now: float) -> None:
        """Remember that nobody answered: an old answer stands in for an hour."""
        known = self._known.get(name) or _Known()
        known.good_until = now + self._ttl_min_s
        known.fault, known.detail = Reason.DNS_TIMEOUT, detail
        self._keep(name, known)

    def tell(self, name: str, port: int, now: float) -> Resolved:
        """Return what is known of `name`, however old."""
        known = self._known.get(name)
        if known is None:
            return Resolved((), Reason.DNS_TIMEOUT, f"{name}: no answer yet")
        return self._say(name, known, port, now)

    def _say(self, name: str, known: _Known, port: int, now: float) -> Resolved:
        if known.addresses and now < known.stale_until:
            judged = known.judged.get(port)
            if judged is None:
                judged = known.judged[port] = self._judge(name, known.addresses, port)
            return judged
        return Resolved((), known.fault or Reason.DNS_TIMEOUT, f"{name}: {known.detail}")

    def _judge(self, name: str, addresses: tuple[Address, ...], port: int) -> Resolved:
        if len(addresses) > ADDRESSES_MAX:
            detail = f"{name} has {len(addresses)} addresses, more than {ADDRESSES_MAX}"
            return Resolved((), Reason.POLICY_DENIED, detail)
        for address in addresses:
            refusal = self._policy.refusal_of_address(address, port)
            if refusal is not None:
                return Resolved((), Reason.POLICY_DENIED, f"{name}: {refusal}")
        return Resolved(tuple(sorted(addresses, key=lambda address: address.version)))

    def _keep(self, name: str, known: _Known) -> None:
        self._known.pop(name, None)
        if len(self._known) >= NAMES_MAX:
            del self._known[next(iter(self._known))]  # the one heard of longest ago
        self._known[name] = known
