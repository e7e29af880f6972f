"""Bodies at the edge of what can be read at all."""

from controller.db.session import Database
from tests.fakes.api import an_api, asking


async def test_no_depth_of_a_body_is_a_fault_of_ours(database: Database) -> None:
    """What is read just so may be too deep for the next step: the stack is deeper there."""
    async with asking(an_api(database)) as client:
        for depth in range(930, 1000):
            body = b"[" * depth + b"]" * depth
            told = await client.patch("/v1/deployments/demo", content=body)
            assert told.status_code in (400, 422), (depth, told.text)
