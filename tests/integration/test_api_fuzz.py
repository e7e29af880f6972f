"""Requests made up from the API's own description: whatever is asked, the answer is as described.

200 cases in all, 5,000 with FLEETPULSE_FULL=1; a real server on a real port, with a deployment and
a route there, which half of the requests are about.
"""

import os
from collections import Counter
from collections.abc import Iterator
from typing import Any

import anyio
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from controller.db.session import open_database
from controller.model import Policy
from controller.service import Service
from tests.fakes.api_server import serving
from tests.fakes.verbs import EXTERNAL

WANTED = 5000 if os.environ.get("FLEETPULSE_FULL") else 200
CASES = WANTED * 11 // 10
"""Shared out among the operations; some know fewer different cases than their share."""
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
STREAMS = "/v1/events"
"""Never ends, so it is tested elsewhere."""


async def a_world(database_url: str) -> str:
    """Put a deployment `demo` with a route there; return the route's id."""
    database = open_database(database_url)
    service = Service(database)
    await service.apply_deployment(
        "demo", replicas=1, policy=Policy(), cleanup_target_statuses=(), revision=EXTERNAL
    )
    route = await service.register_route("demo", host="10.0.0.7", port=8000)
    await database.close()
    return route.id


@pytest.fixture
def served(database_url: str) -> Iterator[tuple[str, str]]:
    route_id = anyio.run(a_world, database_url)
    with serving(database_url) as url:
        yield url, route_id


@pytest.mark.timeout(1800 if WANTED > 200 else 120)
def test_whatever_is_asked_the_answer_is_as_described(served: tuple[str, str]) -> None:
    url, route_id = served
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    known = {"name": "demo", "route_id": route_id, "number": 1}
    operations = [found.ok() for found in schema.get_all_operations() if isinstance(found, Ok)]
    operations = [each for each in operations if each.path != STREAMS]
    operations.sort(key=lambda each: each.method.upper() == "DELETE")  # last: it ends the world
    assert len(operations) > 15
    statuses: Counter[int] = Counter()
    for operation in operations:
        cases = operation.as_strategy() | operation.as_strategy(
            generation_mode=schemathesis.GenerationMode.NEGATIVE
        )

        @settings(
            max_examples=CASES // len(operations) + 1,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=cases, at_home=st.booleans())
        def ask(case: schemathesis.Case[Any], *, at_home: bool) -> None:
            if at_home:
                case.path_parameters = {
                    key: known.get(key, value)
                    for key, value in (case.path_parameters or {}).items()
                }
            response = case.call()
            statuses[response.status_code] += 1
            case.validate_response(response, checks=CHECKS)

        ask()
    print(dict(statuses))  # noqa: T201 - shown by -rP
    assert {200, 201, 404, 422} <= statuses.keys()
    assert max(statuses) < 500
    assert statuses.total() >= WANTED
