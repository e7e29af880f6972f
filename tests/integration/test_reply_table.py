"""The reply table where the body is needed; `test_wire` holds the wire to its other column."""

from collections.abc import AsyncIterator

import pytest

from probe.wire import HttpCheck, OutcomeKind, Reason
from tests.fakes.asker import Asker, asking
from tests.fakes.replies import BODY_TEXT, TABLE

NEEDED = HttpCheck(body_contains=BODY_TEXT)


@pytest.fixture
async def asker() -> AsyncIterator[Asker]:
    async with asking() as running:
        yield running


def test_table_has_passing_and_failing_kinds_and_blames_the_replica_alone() -> None:
    """R-53: what a replica answers is never the prober's own fault."""
    for column in (
        {kind.outcome for kind in TABLE.values()},
        {kind.outcome_needed for kind in TABLE.values()},
    ):
        assert column == {OutcomeKind.PASSED, OutcomeKind.FAILED}
    assert len(TABLE) >= 24


@pytest.mark.parametrize("name", sorted(TABLE))
async def test_needed_body_is_judged_as_the_table_says(name: str, asker: Asker) -> None:
    kind = TABLE[name]
    check = asker.check(asker.farm.plant(name), checks=(NEEDED,))
    for _ in range(2):  # the second one meets what the first one has left of the connection
        outcome = await asker.probe(check)
        assert outcome.reason is kind.needed, outcome


async def test_redirect_is_named_and_never_followed(asker: Asker) -> None:
    outcome = await asker.probe(asker.check(asker.farm.plant("s301")))
    assert outcome.reason is Reason.REDIRECT_REFUSED
    assert asker.farm.requests.total() == 1
