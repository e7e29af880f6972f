"""How long a new replica takes from its creation to its address, with the periods of every day."""

from itertools import count

import pytest

from controller.db.repository import Repository
from controller.model import Deployment, Stage
from controller.provision.port import SessionState
from controller.reconcile.handler import Mark
from controller.reconcile.provision import CheckStarting, Provision
from controller.reconcile.schedules import schedule_of
from controller.settings import Settings
from tests.fakes.database import some_routes
from tests.fakes.provisioner import FakeProvisioner
from tests.fakes.reconcile import Ticks

SETTINGS = Settings()
PAUSE_S = 5


@pytest.fixture
def provisioner() -> FakeProvisioner:
    fake = FakeProvisioner()
    fake.starts_as = SessionState.PENDING
    return fake


@pytest.fixture
def coming(ticks: Ticks, provisioner: FakeProvisioner) -> Ticks:
    """The two handlers of the way up, as a term has them."""
    limit_s = SETTINGS.starting_timeout_s
    return ticks.of(
        Provision(provisioner, schedule_of(SETTINGS, "provision"), timeout_s=limit_s),
        CheckStarting(provisioner, schedule_of(SETTINGS, "check_starting"), timeout_s=limit_s),
    )


@pytest.mark.parametrize("pending_s", [1, 7, 20, 45, 100])
async def test_an_address_is_seen_soon_after_it_is_there(
    coming: Ticks,
    provisioner: FakeProvisioner,
    repository: Repository,
    deployment: Deployment,
    epoch: int,
    *,
    pending_s: int,
) -> None:
    """R-49: no mark tells of it, so it is looked for every 5 s while a session is pending."""
    await coming.runner.tick(epoch=epoch)
    coming.now_s += 30  # in the midst of a period
    (route,) = await some_routes(repository, deployment, 1, epoch=epoch)
    coming.runner.mark(Mark.PENDING)
    for passed_s in count():
        if passed_s == pending_s:
            provisioner.give_address(route.id)
        await coming.runner.tick(epoch=epoch)
        (seen,) = (await repository.observe()).routes
        if seen.stage is Stage.WARMING_UP:
            break
        coming.now_s += 1
    print(f"pending for {pending_s} s, address after {passed_s} s")  # noqa: T201 - the figure
    assert pending_s <= passed_s <= pending_s + PAUSE_S


async def test_nobody_is_asked_while_nothing_starts(
    coming: Ticks,
    provisioner: FakeProvisioner,
    repository: Repository,
    deployment: Deployment,
    epoch: int,
) -> None:
    """R-04: with the last address the short pauses are over."""
    (route,) = await some_routes(repository, deployment, 1, epoch=epoch)
    for _ in range(30):
        await coming.runner.tick(epoch=epoch)
        coming.now_s += 1
    provisioner.give_address(route.id)
    for _ in range(10):
        await coming.runner.tick(epoch=epoch)
        coming.now_s += 1
    asked = len(provisioner.calls)
    await coming.runner.tick(epoch=epoch)
    assert coming.runner.next_at() > coming.now_s + PAUSE_S
    assert len(provisioner.calls) == asked
