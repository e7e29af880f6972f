"""The audit asks of what changed, once, and counts what does not fit."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import pytest

from controller.db.ledger import Epochs, Ledger
from controller.invariants import Invariant
from controller.metrics import ControllerMetrics
from controller.model import Route, RouteId
from controller.reconcile import audit
from controller.reconcile.audit import AuditHistory
from tests.fakes.nouns import fleet, route_id
from tests.fakes.reconcile import ALWAYS, a_world


class Books(Ledger):
    """Keeps what it is asked for, and finds what a test planted."""

    def __init__(self) -> None:
        self.asked: list[set[RouteId]] = []
        self.wrong: tuple[RouteId, ...] = ()
        self.back = 0

    async def miscounted(self, route_ids: Iterable[RouteId]) -> tuple[RouteId, ...]:
        self.asked.append(set(route_ids))
        return self.wrong

    async def epochs(self, known: Epochs | None) -> Epochs:
        return Epochs(
            last_id=1 if known is None else known.last_id + 1, highest=1, went_back=self.back
        )


class Audited:
    def __init__(self) -> None:
        self.books, self.metrics = Books(), ControllerMetrics()
        self.handler = AuditHistory(self.books, self.metrics, ALWAYS)

    async def run(self, routes: Sequence[Route]) -> None:
        assert await self.handler.commit(a_world(routes), epoch=1) == 0

    def counted(self, invariant: Invariant) -> float | None:
        return self.metrics.registry.get_sample_value(
            "fleetpulse_invariant_violations_total", {"invariant": invariant.value}
        )


@pytest.fixture
def audited() -> Audited:
    return Audited()


async def test_only_what_changed_is_asked_for_and_who_left_once_more(audited: Audited) -> None:
    """I7, I10"""
    first, second, third = fleet(3)
    await audited.run([first, second, third])
    await audited.run([first, second, third])
    await audited.run([replace(first, version=first.version + 1), second])
    await audited.run([replace(first, version=first.version + 1), second])
    assert audited.books.asked == [{first.id, second.id, third.id}, {first.id, third.id}]


async def test_what_does_not_fit_is_counted(audited: Audited) -> None:
    """I7, I8"""
    audited.books.wrong, audited.books.back = (route_id(1), route_id(2)), 3
    await audited.run(fleet(3))
    assert audited.counted(Invariant.HISTORY) == 2
    assert audited.counted(Invariant.EPOCHS) == 3


async def test_a_large_fleet_is_asked_for_in_parts(
    audited: Audited, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "ROUTES_MAX", 2)
    routes = fleet(5)
    for _ in range(4):
        await audited.run(routes)
    assert [len(ids) for ids in audited.books.asked] == [2, 2, 1]
