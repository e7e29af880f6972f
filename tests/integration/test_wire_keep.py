"""What becomes of connections between probes: kept, renewed, learnt from, gone without trace."""

from ipaddress import IPv4Address
from itertools import pairwise
from os import environ
from pathlib import Path
from typing import Final

import pytest

from probe.http.keep import KeepRule
from probe.http.pool import ConnectionEvent
from probe.wire import Reason
from tests.fakes.asker import Asker, asking, until
from tests.fakes.farm import Plot
from tests.fakes.talker import talking

FULL: Final = environ.get("FLEETPULSE_FULL") == "1"
RESTARTS: Final = 1000 if FULL else 100
TIME_WAIT: Final = "06"


def time_waits(plot: Plot) -> int:
    """Count the kernel's connections to `plot` that wait out their time on our side."""
    packed = int.from_bytes(IPv4Address(plot.host).packed, "little")
    theirs = f"{packed:08X}:{plot.port:04X}"
    rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return sum(row[2] == theirs and row[3] == TIME_WAIT for row in rows)


async def test_connection_is_renewed_on_every_nth_probe() -> None:
    async with asking(keep=KeepRule(fresh_every=5)) as asker:
        plot = asker.farm.plant("ok200")
        check = asker.check(plot)
        outcomes = [await asker.probe(check) for _ in range(31)]
        assert {outcome.reason for outcome in outcomes} == {Reason.OK}
        fresh = [n for n, outcome in enumerate(outcomes) if outcome.connect_s > 0]
        assert fresh[0] == 0
        assert fresh[1] <= 5
        assert {after - before for before, after in pairwise(fresh[1:])} == {5}
        assert asker.farm.connections[plot.host] == len(fresh)


async def test_forced_fresh_connections_of_a_fleet_do_not_come_together() -> None:
    async with asking(keep=KeepRule(fresh_every=20)) as asker:
        checks = [asker.check(asker.farm.plant("ok200"), timeout_s=5.0) for _ in range(200)]
        fresh = []
        for _ in range(40):
            for check in checks:
                asker.start(check)
            await asker.settle(*checks)
            fresh.append(sum(asker.outcomes[check][-1].connect_s > 0 for check in checks))
        assert fresh[0] == 200
        assert max(fresh[1:]) < 40, fresh


async def test_connection_that_would_be_too_old_by_the_next_probe_is_not_kept() -> None:
    async with asking(keep=KeepRule(connection_age_s=5.0)) as asker:
        check = asker.check(asker.farm.plant("ok200"), interval_s=10.0)
        for _ in range(2):
            assert (await asker.probe(check)).connect_s > 0
            assert asker.pool.open_connections == 0


async def test_closing_after_a_complete_reply_leaves_no_time_wait() -> None:
    async with asking(keep=KeepRule(fresh_every=1)) as asker:
        plot = asker.farm.plant("ok200")
        check = asker.check(plot)
        for _ in range(50):
            assert (await asker.probe(check)).reason is Reason.OK
        assert asker.farm.connections[plot.host] == 50
        assert time_waits(plot) == 0


async def test_replica_that_gives_up_before_the_next_probe_is_not_kept_any_more() -> None:
    """The usual server closes after 5 s, and is asked every 10: to keep is of no use to it."""
    async with asking() as asker, talking(patience_s=0.02) as talker:
        check = asker.check(talker.plot)
        assert (await asker.probe(check)).reason is Reason.OK
        assert asker.pool.open_connections == 1
        await until(lambda: asker.pool.open_connections == 0)
        assert asker.pool.events[ConnectionEvent.IDLED_OUT] == 1
        for _ in range(20):
            assert (await asker.probe(check)).reason is Reason.OK
            assert asker.pool.open_connections == 0
        assert asker.pool.events[ConnectionEvent.IDLED_OUT] == 1
        assert asker.pool.events[ConnectionEvent.RETRIED] == 0


async def test_restart_of_a_patient_replica_teaches_nothing() -> None:
    async with asking() as asker:
        plot = asker.farm.plant("ok200")
        check = asker.check(plot)
        for _ in range(2):
            await asker.probe(check)
        asker.farm.hang_up(plot)
        await until(lambda: asker.pool.open_connections == 0)
        for _ in range(5):
            await asker.probe(check)
        assert asker.farm.connections[plot.host] == 2


@pytest.mark.parametrize("probes", [1, 2])
async def test_replica_restarted_on_its_address_while_pooled_is_never_called_down(
    probes: int,
) -> None:
    """Reliability, section 4; 1,000 restarts with FLEETPULSE_FULL=1, else 100."""
    async with asking() as asker:
        plot = asker.farm.plant("ok200")
        check = asker.check(plot, timeout_s=5.0, connect_timeout_s=5.0)
        for turn in range(RESTARTS):
            for _ in range(probes):
                assert (await asker.probe(check)).reason is Reason.OK
            if turn % 3:
                asker.start(check)  # the request and the close cross on the way
            asker.farm.hang_up(plot, rst=turn % 2 == 0)
            if turn % 3:
                await asker.settle(check)
        assert {outcome.reason for outcome in asker.outcomes[check]} == {Reason.OK}


async def storm(asker: Asker, turns: int) -> None:
    """Open and close as fast as can be, so that every number is used again and again."""
    kinds = ("ok200", "ok200_close", "close_idle", "close_without_byte", "reset", "s503")
    checks = {asker.check(asker.farm.plant(kind), timeout_s=5.0): kind for kind in kinds * 20}
    alone = {check: (await asker.probe(check)).reason for check in checks}
    for turn in range(turns):
        for number, check in enumerate(checks):
            asker.start(check)
            if (number + turn) % 7 == 0:
                asker.pool.cancel(check)
                asker.waiting.discard(check)
            if (number + turn) % 11 == 0 and check not in asker.waiting:
                asker.pool.forget(check)
        await asker.settle(*checks)
    for check, outcomes in asker.outcomes.items():
        assert {outcome.reason for outcome in outcomes} == {alone[check]}, checks[check]


async def test_numbers_used_again_never_mix_up_two_replicas() -> None:
    async with asking(keep=KeepRule(fresh_every=3)) as asker:
        await storm(asker, 200 if FULL else 25)
