"""`/v1/events`: the history as it is written, as server-sent events.

The id of an event is the number of its row, so that who comes back with `Last-Event-ID` misses
nothing, whichever controller answers.
"""

from collections.abc import AsyncIterator
from typing import Annotated, Final

import anyio
import msgspec
from litestar.di import NamedDependency
from litestar.exceptions import HTTPException
from litestar.params import HeaderParameter
from litestar.response import ServerSentEvent, ServerSentEventMessage

from controller.api.problems import RETRY_AFTER_S
from controller.api.routing import looks
from controller.api.views import HistoryView, shown
from controller.db.feed import Feed
from controller.errors import DatabaseUnreachable

POLL_S: Final = 1.0
BEAT_S: Final = 15.0
"""A line at least so often, so that both sides notice when the other is gone."""
FOLLOW_S: Final = 600.0
"""After so long a follower has to come back, and show a token that is still good."""
BATCH: Final = 500
FOLLOWERS_MAX: Final = 16
ROW_MAX: Final = 2**63 - 1

LastEventId = Annotated[
    int | None,
    HeaderParameter(
        name="last-event-id",
        ge=0,
        le=ROW_MAX,
        description="Go on after this event; without it, from now on.",
    ),
]


class Followers:
    """Those who follow the history: few enough, and gone when the server goes."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._ending = anyio.Event()
        self._count = 0

    def end(self) -> None:
        """Let every stream end."""
        self._ending.set()

    @property
    def full(self) -> bool:
        """Tell whether there is no room for another."""
        return self._count >= FOLLOWERS_MAX

    async def newest(self) -> int:
        """Return where the history stands now."""
        return await self._feed.newest()

    async def follow(self, last: int) -> AsyncIterator[ServerSentEventMessage]:
        """Yield what is written after row `last`, until the time is over; nothing when it is full.

        Many who ask at once are all let in before the first of them is counted here.
        """
        if self.full:
            return
        self._count += 1
        try:
            until = anyio.current_time() + FOLLOW_S
            said_at = float("-inf")
            while not self._ending.is_set() and (now := anyio.current_time()) < until:
                rows = await self._look(last)
                for number, event in rows:
                    last = number
                    yield event
                if rows or now - said_at >= BEAT_S:
                    said_at = now
                    yield ServerSentEventMessage(
                        data=None, comment="here", retry=RETRY_AFTER_S * 1000
                    )
                if len(rows) < BATCH:
                    with anyio.move_on_after(POLL_S):
                        await self._ending.wait()
        finally:
            self._count -= 1

    async def _look(self, last: int) -> list[tuple[int, ServerSentEventMessage]]:
        try:
            rows = await self._feed.after(last, limit=BATCH)
        except DatabaseUnreachable:  # it comes back, and nothing was missed
            return []
        return [
            (
                number,
                ServerSentEventMessage(
                    id=number,
                    event="history",
                    data=msgspec.json.encode(shown(entry, HistoryView)).decode(),
                ),
            )
            for number, entry in rows
        ]


@looks("/v1/events", media_type="text/event-stream")
async def follow_events(
    followers: NamedDependency[Followers], last_event_id: LastEventId = None
) -> ServerSentEvent:
    """Follow the history of everything, as server-sent events."""
    if followers.full:
        raise HTTPException(
            f"{FOLLOWERS_MAX} follow the history already; ask again when one has left",
            status_code=503,
            headers={"retry-after": str(RETRY_AFTER_S)},
        )
    last = await followers.newest() if last_event_id is None else last_event_id
    return ServerSentEvent(followers.follow(last))


HANDLERS: Final = (follow_events,)
