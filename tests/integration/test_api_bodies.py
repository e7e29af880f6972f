"""Bodies at the edge of what can be read at all."""

from typing import Any

import pytest
import structlog.testing

from controller.db.session import Database
from tests.fakes.api import an_api, asking

SCOPE = {
    "type": "http",
    "asgi": {"version": "3.0"},
    "http_version": "1.1",
    "method": "PUT",
    "scheme": "http",
    "path": "/v1/deployments/demo",
    "raw_path": b"/v1/deployments/demo",
    "root_path": "",
    "query_string": b"",
    "headers": [(b"host", b"localhost"), (b"content-length", b"9")],
    "client": ("127.0.0.1", 50_000),
    "server": ("127.0.0.1", 9156),
}


async def test_no_depth_of_a_body_is_a_fault_of_ours(database: Database) -> None:
    """What is read just so may be too deep for the next step: the stack is deeper there."""
    async with asking(an_api(database)) as client:
        for depth in range(930, 1000):
            body = b"[" * depth + b"]" * depth
            told = await client.patch("/v1/deployments/demo", content=body)
            assert told.status_code in (400, 422), (depth, told.text)


@pytest.mark.parametrize("came", [0, 1])
async def test_a_body_that_breaks_off_is_not_told_as_a_fault_of_ours(
    database: Database, came: int
) -> None:
    part = {"type": "http.request", "body": b"{", "more_body": True}
    coming = [part] * came + [{"type": "http.disconnect"}]
    statuses: list[int] = []

    async def receive() -> Any:  # noqa: ANN401 - litestar's union of messages
        return coming.pop(0)

    async def send(message: Any) -> None:  # noqa: ANN401 - same
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    scope: Any = {**SCOPE, "state": {}}
    with structlog.testing.capture_logs() as logs:
        await an_api(database).gate(scope, receive, send)
    assert (statuses, logs) == ([400], [])
