"""Listings in pages: bounded however large the fleet is, and resumed by the id seen last."""

from collections.abc import Sequence
from typing import Annotated, Final, Protocol, TypeVar

from litestar.params import Parameter

from controller.errors import InvalidInput

PAGE_MAX: Final = 10_000
Limit = Annotated[int, Parameter(ge=1, le=PAGE_MAX, description="How many at most.")]
After = Annotated[
    str | None,
    Parameter(pattern="^[0-9a-f-]{36}$", description="`next` of the page before."),
]

ENTRIES_MAX: Final = 1000
Entries = Annotated[int, Parameter(ge=1, le=ENTRIES_MAX, description="How many at most.")]
"""Of a listing that is not turned over."""


class _Known(Protocol):
    @property
    def id(self) -> str:
        """What it is known by."""


_Item = TypeVar("_Item", bound=_Known)


def page_of(
    items: Sequence[_Item], *, limit: int, after: str | None
) -> tuple[Sequence[_Item], str | None]:
    """Return one page, and where the next one begins; None when there is none.

    Raises:
        InvalidInput: if what the page before ended with is gone.
    """
    start = 0
    if after is not None:
        places = (place for place, item in enumerate(items, start=1) if item.id == after)
        start = next(places, 0)
        if start == 0:
            raise InvalidInput(f"after: {after!r} is gone meanwhile; begin with the first page")
    page = items[start : start + limit]
    return page, page[-1].id if start + limit < len(items) else None
