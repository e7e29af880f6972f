"""What the wire does at its limits: probes ended early, policy, descriptors, hostile crowds."""

import resource
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from itertools import cycle, islice
from typing import Final

import pytest

from probe.http.pool import ConnectionEvent
from probe.wire import OutcomeKind, Reason
from tests.fakes.asker import VERDICTS, Asker, asking, until
from tests.fakes.farm import KINDS, Plot

DESCRIPTORS: Final = 5000
"""Both ends of 2,000 connections, and what the test itself holds."""


@pytest.fixture
async def asker() -> AsyncIterator[Asker]:
    async with asking() as running:
        yield running


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < DESCRIPTORS:
        pytest.skip(f"needs {DESCRIPTORS} file descriptors, the hard limit is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, DESCRIPTORS), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("kind", ["hang", "unanswered", "ok200"])
@pytest.mark.parametrize("ends", ["cancel", "forget", "close"])
async def test_ended_probe_has_no_outcome_and_leaves_no_connection(
    kind: str, ends: str, asker: Asker
) -> None:
    check = asker.check(asker.farm.plant(kind))
    asker.start(check)
    if kind == "hang":
        await until(lambda: asker.farm.requests.total() == 1)
    match ends:
        case "cancel":
            asker.pool.cancel(check)
        case "forget":
            asker.pool.forget(check)
        case _:
            asker.pool.close()
    await until(lambda: asker.pool.open_connections == 0)
    assert check not in asker.outcomes


async def test_cancelled_probe_can_begin_again_at_once(asker: Asker) -> None:
    plot = asker.farm.plant("ok200")
    check = asker.check(plot)
    for _ in range(50):
        asker.start(check)
        asker.pool.cancel(check)
        assert (await asker.probe(check)).reason is Reason.OK
    assert len(asker.outcomes[check]) == 50


async def test_cancel_keeps_a_connection_between_probes(asker: Asker) -> None:
    plot = asker.farm.plant("ok200")
    check = asker.check(plot)
    await asker.probe(check)
    asker.pool.cancel(check)
    await asker.probe(check)
    assert asker.farm.connections[plot.host] == 1


async def test_forgotten_target_loses_its_kept_connection(asker: Asker) -> None:
    plot = asker.farm.plant("ok200")
    check = asker.check(plot)
    await asker.probe(check)
    asker.pool.forget(check)
    assert check.connection is None
    await until(lambda: asker.farm.open_connections(plot) == 0)


async def test_address_outside_the_policy_is_not_dialled(asker: Asker) -> None:
    check = asker.check(Plot("169.254.169.254", 80))
    outcome = await asker.probe(check)
    assert outcome.reason is Reason.POLICY_DENIED
    assert outcome.kind is OutcomeKind.PROBE_ERROR
    assert "never dialled" in outcome.detail
    assert asker.pool.events[ConnectionEvent.OPENED] == 0


async def test_target_that_should_not_have_been_loaded_ends_as_denied(asker: Asker) -> None:
    outcome = await asker.probe(asker.check(Plot("replica.internal", 80)))
    assert outcome.reason is Reason.POLICY_DENIED
    assert "names are not allowed" in outcome.detail


async def test_no_more_connections_than_allowed_and_none_blamed_on_a_replica() -> None:
    async with asking(max_open=3, max_kept=1) as asker:
        checks = [asker.check(asker.farm.plant("hang")) for _ in range(5)]
        for check in checks:
            asker.start(check)
        crowded = [check for check in checks if check not in asker.waiting]
        assert [asker.outcomes[check][0].reason for check in crowded] == [Reason.LOCAL_FDS] * 2
        assert asker.pool.open_connections == 3


async def test_targets_without_a_kept_connection_still_find_room() -> None:
    async with asking(max_open=6, max_kept=2) as asker:
        checks = [asker.check(asker.farm.plant("ok200")) for _ in range(30)]
        for _ in range(3):
            for check in checks:
                assert (await asker.probe(check)).reason is Reason.OK
        await until(lambda: asker.pool.open_connections == 2)


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket() as last:
        resource.setrlimit(resource.RLIMIT_NOFILE, (last.fileno(), hard))
    held: list[socket.socket] = []
    try:
        while True:  # holes below the limit
            try:
                held.append(socket.socket())
            except OSError:
                break
        yield
    finally:
        for each in held:
            each.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_exhausted_descriptors_blame_the_prober_and_pass_by(asker: Asker) -> None:
    """S1: our own machine's failure is no evidence."""
    check = asker.check(asker.farm.plant("ok200"))
    with no_descriptor_left():
        outcome = await asker.probe(check)
    assert outcome.reason is Reason.LOCAL_FDS
    assert outcome.kind is OutcomeKind.PROBE_ERROR
    assert asker.pool.open_connections == 0
    assert (await asker.probe(check)).reason is Reason.OK


@pytest.mark.usefixtures("many_descriptors")
async def test_five_hundred_hostile_targets_do_not_delay_healthy_ones(asker: Asker) -> None:
    hostile = sorted(KINDS - {"ok200", "unanswered"})
    bad = [
        asker.check(asker.farm.plant(kind), timeout_s=2.0, connect_timeout_s=2.0)
        for kind in islice(cycle(hostile), 500)
    ]
    good = [
        asker.check(asker.farm.plant("ok200"), timeout_s=2.0, connect_timeout_s=2.0)
        for _ in range(50)
    ]
    for check in bad + good:
        asker.start(check)
    await asker.settle(*good)
    waiting = asker.waiting.intersection(bad)
    for _ in range(3):
        for check in good:
            asker.start(check)
        await asker.settle(*good)
    outcomes = [outcome for check in good for outcome in asker.outcomes[check]]
    assert {outcome.reason for outcome in outcomes} == {Reason.OK}
    assert waiting, "the hostile ones were still at it"
    assert max(outcome.total_s for outcome in outcomes) < 1.0
    await asker.settle(*bad)
    for kind, check in zip(cycle(hostile), bad, strict=False):
        assert asker.outcomes[check][-1].reason is VERDICTS[kind][0], kind


@pytest.mark.usefixtures("many_descriptors")
async def test_two_thousand_targets_are_asked_once_each(asker: Asker) -> None:
    plots = [asker.farm.plant(kind) for kind in islice(cycle(["ok200", "s503"]), 2000)]
    checks = [asker.check(plot, timeout_s=8.0, connect_timeout_s=8.0) for plot in plots]
    for check in checks:
        asker.start(check)
    await asker.settle(*checks)
    assert all(asker.farm.requests[plot.host] == 1 for plot in plots)
    codes = [asker.outcomes[check][0].http_status for check in checks]
    assert codes == [200, 503] * 1000
    assert asker.pool.open_connections == 2000
