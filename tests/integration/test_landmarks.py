"""Reference targets: our own network told from theirs, on real sockets."""

import socket
from collections.abc import Iterator

import pytest
import structlog.testing

from probe.health import ended
from probe.layers import Address
from probe.reasons import Reason
from probe.selfwatch.landmarks import Landmarks
from tests.fakes.entries import target
from tests.fakes.rig import Rig
from tests.fakes.wire import PASSED

SILENT = ended(Reason.CONNECT_TIMEOUT, total_s=1.0)


@pytest.fixture
def lighthouse() -> Iterator[socket.socket]:
    """A place that accepts connections until it is closed."""
    listener = socket.create_server(("127.0.0.1", 0))
    yield listener
    listener.close()


def address(listener: socket.socket) -> Address:
    return Address(*listener.getsockname())


def frozen(rig: Rig) -> bool:
    assert rig.sweep.frozen is rig.prober.vitals.cut_off
    return rig.sweep.frozen


async def watching(*places: Address) -> tuple[Rig, Landmarks]:
    rig = Rig()
    for number in range(4):
        rig.server.put_target(target(number, interval_s=1.0, max_retries=1))
    await rig.refresher.step()
    rig.wire.answers_at_once = PASSED
    rig.advance(1.5)
    landmarks = Landmarks(rig.prober, places)
    await landmarks.step()
    return rig, landmarks


async def test_verdicts_freeze_while_all_is_silent_and_move_again_after(
    lighthouse: socket.socket,
) -> None:
    """R-66."""
    place = address(lighthouse)
    rig, landmarks = await watching(place)
    assert rig.prober.vitals.landmarks_up == 1
    lighthouse.close()
    rig.wire.answers_at_once = SILENT
    with structlog.testing.capture_logs() as logs:
        rig.advance(0.6)  # half of the fleet, and then we look
        await landmarks.step()
        assert frozen(rig)
        before = [check.streak for check in rig.sweep.scheduler]
        rig.advance(5.0)
        await landmarks.step()
        assert [check.streak for check in rig.sweep.scheduler] == before
        assert rig.sweep.counters.reasons[Reason.LOCAL_NETWORK] >= 16
        back = socket.create_server(place)
        await landmarks.step()
        back.close()
    assert not frozen(rig)
    assert [line["event"] for line in logs] == ["network_gone", "network_back"]
    rig.advance(2.0)
    assert not any(check.streak.healthy for check in rig.sweep.scheduler)


async def test_a_silent_fleet_is_theirs_while_one_landmark_answers(
    lighthouse: socket.socket,
) -> None:
    """R-66."""
    rig, landmarks = await watching(address(lighthouse), Address("127.0.0.1", 1))
    rig.wire.answers_at_once = SILENT
    rig.advance(1.1)
    await landmarks.step()
    assert not frozen(rig)
    assert (rig.prober.vitals.landmarks_up, rig.prober.vitals.landmarks_down) == (1, 1)


async def test_silent_landmarks_alone_freeze_nothing() -> None:
    """R-66."""
    rig, landmarks = await watching(Address("127.0.0.1", 1))
    rig.advance(1.1)
    await landmarks.step()
    assert not frozen(rig)
