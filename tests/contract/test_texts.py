"""What replicas and people say is stored, whatever is in it, and never undoes a neighbour's row."""

from controller.db.repository import Repository
from controller.model import Deployment, Health
from tests.fakes.database import change, running_routes, waiting

ODD = "said \0 and \udcff, \U0001f600 and \r\n"
STORED = "said \ufffd and ?, \U0001f600 and \r\n"


async def test_odd_letters_are_replaced_and_the_batch_is_written(
    repository: Repository, deployment: Deployment, epoch: int
) -> None:
    """R-55: a reason reaches history."""
    first, second = await running_routes(repository, deployment, 2, epoch=epoch)
    changes = [
        change(first, health=Health.UNHEALTHY, message=ODD),
        change(second, health=Health.UNHEALTHY, message="plain"),
    ]
    applied = await repository.apply(changes, [waiting(deployment, message=ODD)], epoch=epoch)
    assert applied.applied == 2
    reasons = {route.id: route.reason for route in (await repository.observe()).routes}
    assert reasons == {first.id: STORED, second.id: "plain"}
    assert (await repository.history_of(first.id))[0].message == STORED
    assert (await repository.history_of(deployment.id))[0].message == STORED
