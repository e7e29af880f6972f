"""The verbs over HTTP are the verbs on a database: the same suite, asked through the API."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from controller.client import ApiClient
from controller.db.session import Database
from controller.errors import InvalidInput
from controller.service import Service
from tests.contract import (
    test_rollout_plan,
    test_rollout_progress,
    test_rollout_verbs,
    test_service,
    test_steering_verbs,
)
from tests.fakes.api import TOKENS, an_api, asking, tokens_file
from tests.fakes.verbs import apply_demo


@pytest.fixture
def dialect() -> str:
    """One dialect will do: the other is the service's affair, and the same suite shows it there."""
    return "sqlite"


class AsAnybody:
    """Asks as whoever a test names: over HTTP an actor is a token, never an argument."""

    def __init__(self, clients: dict[str, ApiClient]) -> None:
        self._clients = clients

    def __getattr__(self, verb: str) -> Any:  # noqa: ANN401 - any verb
        def ask(*arguments: Any, actor: str = "ada", **given: Any) -> Any:  # noqa: ANN401
            return getattr(self._clients[actor], verb)(*arguments, **given)

        return ask


@pytest.fixture
async def service(database: Database, tmp_path: Path) -> AsyncIterator[AsAnybody]:
    async with AsyncExitStack() as stack:
        api = an_api(database, tokens=tokens_file(tmp_path))
        clients = {
            name: ApiClient(await stack.enter_async_context(asking(api, token=token)))
            for name, token in TOKENS.items()
        }
        yield AsAnybody(clients)


class TestApply(test_service.TestApply):
    @pytest.mark.parametrize("replicas", [-1, 10_001])
    async def test_count_out_of_bounds_is_refused(self, service: Service, replicas: int) -> None:
        """Refused where the body is read, with the bound that is not kept."""
        with pytest.raises(
            InvalidInput, match=rf"replicas: expected int [<>]= \d+, found {replicas}"
        ):
            await apply_demo(service, replicas=replicas)
        assert await service.list_deployments() == ()


class TestScaleAndDelete(test_service.TestScaleAndDelete): ...


class TestRoutes(test_service.TestRoutes):
    @pytest.mark.parametrize(
        ("host", "port", "says"),
        [
            ("", 80, "host: .*found ''"),
            ("http://x/", 80, "host 'http://x/'"),
            ("10.0.0.7", 0, "port: .*found 0"),
            ("10.0.0.7", 65536, "port: .*found 65536"),
        ],
    )
    async def test_address_that_cannot_be_dialled_is_refused(
        self, service: Service, host: str, port: int, says: str
    ) -> None:
        with pytest.raises(InvalidInput, match=says):
            await service.register_route("demo", host=host, port=port)


class TestActivate(test_rollout_verbs.TestActivate): ...


class TestAbort(test_rollout_verbs.TestAbort): ...


class TestPlan(test_rollout_plan.TestPlan): ...


class TestProgress(test_rollout_progress.TestProgress): ...


class TestPause(test_steering_verbs.TestPause): ...


class TestPromote(test_steering_verbs.TestPromote): ...


class TestRetry(test_steering_verbs.TestRetry): ...


class TestRollback(test_steering_verbs.TestRollback): ...


class TestEveryVerb(test_steering_verbs.TestEveryVerb): ...
