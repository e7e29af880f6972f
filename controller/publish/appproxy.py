"""Tells a proxy by the bus: an endpoint's keys in one go, then the events that they changed.

Called by sync_proxy, after the commit. A table never replaces a newer one, however late it comes
(R-50): the value carries its version, and a script compares before it writes. Knows tables, not
why they are as they are.
"""

from collections.abc import Iterator, Sequence
from enum import StrEnum
from itertools import chain
from typing import Final

import msgspec

from controller.model import HealthCheck
from controller.publish.keys import (
    EVENTS_MAX_LENGTH,
    ROUTES_TTL_S,
    ROUTES_UPDATED,
    STATUS_UPDATED,
    ProxyKeys,
)
from controller.route.table import Publication, connection_info
from probe.bus.client import BusLink

CHUNK: Final = 100
"""Endpoints in one exchange: 100 of 10 routes hold the server for about 5 ms."""

_SCRIPT: Final = """\
local function version(value)
  if type(value) ~= 'string' then return nil end
  local epoch, generation = string.match(value, '^{"@(%d+)%.(%d+)":%[%]')
  return tonumber(epoch), tonumber(generation)
end
local epoch, generation = version(redis.pcall('GET', KEYS[1]))
local mine, my_generation = version(ARGV[2])
if epoch and (epoch > mine or (epoch == mine and generation > my_generation)) then return 0 end
local changed = 2
for i = 1, #KEYS do
  if redis.pcall('GET', KEYS[i]) ~= ARGV[i + 1] then changed = 1 end
  redis.call('SET', KEYS[i], ARGV[i + 1], 'EX', ARGV[1])
end
return changed
"""
"""KEYS: connection info, then whatever goes with it; ARGV: time to live, then their values.
What is no table of ours, or no string at all, is older than any."""


class Outcome(StrEnum):
    """What became of a table on the bus."""

    OLDER = "older"
    """Refused: the bus has a newer one."""
    CHANGED = "changed"
    """Written, and something there was different."""
    SAME = "same"
    """Written over the same: only its life is longer."""


_REPLIES: Final = (Outcome.OLDER, Outcome.CHANGED, Outcome.SAME)


class AppProxy:
    """The proxy's side of the bus, as far as we write it."""

    def __init__(self, link: BusLink, keys: ProxyKeys) -> None:
        self._link = link
        self._keys = keys

    async def write(
        self, publications: Sequence[Publication], *, announce: bool
    ) -> tuple[Outcome, ...]:
        """Write tables, at most one of each endpoint; return what became of each, in order.

        Those that changed something get their events after it; with `announce` those that did
        not as well.

        Raises:
            BusError: if one cannot be written; those before it may be.
        """
        outcomes: list[Outcome] = []
        for start in range(0, len(publications), CHUNK):
            outcomes += await self._write_keys(publications[start : start + CHUNK])
        told = [
            each
            for each, outcome in zip(publications, outcomes, strict=True)
            if outcome is Outcome.CHANGED or (announce and outcome is Outcome.SAME)
        ]
        # After every key, not only its own: a stream that is refused keeps none from being written.
        for start in range(0, len(told), CHUNK):
            await self._tell(told[start : start + CHUNK])
        return tuple(outcomes)

    async def _write_keys(self, publications: Sequence[Publication]) -> tuple[Outcome, ...]:
        batch = self._link.batch()
        values = [values_of(self._keys, each) for each in publications]
        for named in values:
            # The names of one endpoint hash to slots of their own: a cluster takes them one by one.
            together = named if self._link.one_server else dict([next(iter(named.items()))])
            words: list[str | int] = [_SCRIPT, len(together), *together]
            words += [ROUTES_TTL_S, *together.values()]
            batch.add_words("EVAL", *words, key=next(iter(named)))
        outcomes = tuple(_REPLIES[int(reply)] for reply in await self._link.write(batch))
        if not self._link.one_server:
            rest = self._link.batch()
            for named, outcome in zip(values, outcomes, strict=True):
                for name, value in list(named.items())[1:] if outcome is not Outcome.OLDER else ():
                    rest.add("SET", name, value, "EX", ROUTES_TTL_S)
            await self._link.write(rest)
        return outcomes

    async def _tell(self, publications: Sequence[Publication]) -> None:
        batch = self._link.batch()
        for event in chain.from_iterable(map(_events, publications)):
            batch.add("XADD", self._keys.events, "MAXLEN", "~", EVENTS_MAX_LENGTH, "*", *event)
        await self._link.write(batch)


def values_of(keys: ProxyKeys, publication: Publication) -> dict[str, str]:
    """Return every key of an endpoint with its value, connection info first."""
    endpoint, table = publication.deployment_id, publication.table
    check = table.health_check
    return {
        keys.connection_info(endpoint): connection_info(
            table, epoch=publication.epoch, generation=publication.generation
        ),
        keys.health_check_enabled(endpoint): "false" if check is None else "true",
        keys.health_check_config(endpoint): "null" if check is None else health_check_config(check),
        **{
            keys.traffic_ratio(endpoint, route.session_id): str(route.ratio)
            for route in table.routes
        },
    }


def health_check_config(check: HealthCheck) -> str:
    """Write a health check as the proxies' contract names its fields; durations in seconds.

    >>> health_check_config(HealthCheck(path="/h"))[:41]
    '{"path":"/h","interval":10.0,"max_wait_ti'
    """
    code = check.expected_status_code
    return msgspec.json.encode(
        {
            "path": check.path,
            "interval": check.interval_s,
            "max_wait_time": check.max_wait_time_s,
            "expected_status_code": int(code) if code.isdecimal() else code,
            "max_retries": check.max_retries,
            "initial_delay": check.initial_delay_s,
        }
    ).decode()


def _events(publication: Publication) -> Iterator[Sequence[str | int]]:
    """Yield the fields of each event of one table."""
    count = len(publication.table.routes)
    version = ("epoch", publication.epoch, "generation", publication.generation)
    endpoint = ("endpoint_id", publication.deployment_id)
    yield ("event", ROUTES_UPDATED, *endpoint, *version)
    status = ("status", "serving" if count else "empty", "routes", count)
    yield ("event", STATUS_UPDATED, *endpoint, *version, *status)
