"""History as it is followed: each row once, in order, whatever the clock does."""

import pytest
from sqlalchemy import insert

from controller.db.feed import Feed
from controller.db.session import Database
from controller.db.tables import history
from controller.model import Deployment

JUST_NOW, LATELY, SET_BACK = 0, -5_000, 3_600_000
"""When a row was written, beside the database's clock now, in ms."""


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        pytest.param((LATELY, LATELY), 2, id="all have settled"),
        pytest.param((LATELY, JUST_NOW), 1, id="the last has not"),
        pytest.param((JUST_NOW, LATELY), 0, id="none goes before one that has not"),
        pytest.param((SET_BACK, LATELY), 2, id="a clock set back hides nothing"),
    ],
)
async def test_rows_are_shown_in_the_order_of_their_numbers(
    database: Database,
    deployment: Deployment,
    written: tuple[int, ...],
    shown: int,
) -> None:
    feed = Feed(database)
    last = await feed.newest()
    async with database.write(epoch=None) as write:
        for number, beside_ms in enumerate(written):
            await write.connection.execute(
                insert(history).values(
                    deployment_id=deployment.id,
                    subject=deployment.id,
                    category="note",
                    from_state="",
                    to_state="",
                    phase="",
                    message=str(number),
                    result="success",
                    error_code="",
                    attempts=1,
                    created_at_ms=write.now_ms + beside_ms,
                    updated_at_ms=write.now_ms + beside_ms,
                )
            )
    found = await feed.after(last, limit=10)
    assert [entry.message for _, entry in found] == [str(number) for number in range(shown)]
