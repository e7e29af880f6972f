"""A route goes for good only when a second witness saw it fail, too."""

from typing import Any

import pytest

from controller.model import Health, Route, RouteId
from controller.route.guard import BusView, Case, StatusEvidence, blind_to, evidence_of
from controller.route.guard.second_source import (
    ASKED_MIN,
    distrusted,
    follow,
    on_fresh_connection,
    second_ids,
    to_ask,
)
from probe.wire import Phases, Reason, ReplicaId, partition_of
from tests.fakes.nouns import a_route, a_view, failed, fleet, own_fault, passed

HALVES = {"p-1": frozenset(range(32)), "p-2": frozenset(range(32, 64))}
ALONE = {"p-1": frozenset(range(64))}
ROUTE = a_route(1)
DIALLED = {"reason": Reason.CONNECT_REFUSED}


def view(
    own: StatusEvidence | None,
    second: StatusEvidence | None = None,
    *,
    probers: dict[str, frozenset[int]] = HALVES,
    **given: Any,  # noqa: ANN401 - any field of a view
) -> BusView:
    return a_view(
        {} if own is None else {ROUTE.id: own},
        second={} if second is None else {ROUTE.id: second},
        probers=probers,
        **given,
    )


def after(*looks: tuple[float, BusView]) -> Case | None:
    """Return the case of the route after looks at these moments."""
    cases: dict[RouteId, Case] = {}
    for at_s, seen in looks:
        cases = follow(cases, [ROUTE], seen, now_s=at_s)
    return cases.get(ROUTE.id)


def by(prober: str, **given: Any) -> StatusEvidence:  # noqa: ANN401 - any field of a status
    return failed(ROUTE, prober=prober, **(DIALLED | given))


class TestConfirmation:
    def test_one_prober_among_several_confirms_nothing_by_itself(self) -> None:
        """S11: however long it says so, over however many connections."""
        case = after(*((at_s, view(by("p-1", seq=int(at_s)))) for at_s in range(0, 600, 5)))
        assert case is not None
        assert (case.first, case.second) == ("p-1", "")

    def test_another_prober_that_took_the_route_over_confirms(self) -> None:
        case = after((0, view(by("p-1"))), (10, view(by("p-2", times=4))))
        assert case is not None
        assert case.second == "prober p-2 found the same as p-1"

    def test_another_prober_that_was_asked_confirms(self) -> None:
        case = after((0, view(by("p-1"))), (5, view(by("p-1"), by("p-2", times=1))))
        assert case is not None
        assert case.second == "prober p-2 found the same as p-1"

    @pytest.mark.parametrize(
        "second",
        [
            passed(ROUTE, prober="p-2"),
            own_fault(ROUTE, prober="p-2"),
            by("p-1"),
            by("p-2", age_s=31.0),
            by("p-2", generation=4),
        ],
        ids=["passes", "own fault", "the same prober", "old", "another session"],
    )
    def test_what_is_no_second_witness_confirms_nothing(self, second: StatusEvidence) -> None:
        case = after((0, view(by("p-1"))), (60, view(by("p-1"), second)))
        assert case is not None
        assert case.second == ""

    @pytest.mark.parametrize(("later_s", "confirmed"), [(4.9, False), (5.0, True)])
    def test_the_only_prober_confirms_by_a_later_connection(
        self, later_s: float, *, confirmed: bool
    ) -> None:
        own = by("p-1", age_s=0.0)
        case = after((0, view(own, probers=ALONE)), (later_s, view(own, probers=ALONE)))
        assert case is not None
        assert bool(case.second) is confirmed

    def test_the_only_prober_confirms_nothing_over_a_kept_connection(self) -> None:
        own = failed(ROUTE, prober="p-1", age_s=0.0, reason=Reason.STATUS_UNEXPECTED)
        case = after((0, view(own, probers=ALONE)), (60, view(own, probers=ALONE)))
        assert case is not None
        assert case.second == ""

    def test_the_only_prober_confirms_by_a_second_target_of_its_own(self) -> None:
        """S11: a connection of a target that was asked for later is a later connection."""
        kept = failed(ROUTE, prober="p-1", age_s=0.0, reason=Reason.STATUS_UNEXPECTED)
        cases = follow({}, [ROUTE], view(kept, probers=ALONE), now_s=0.0)
        alone = view(kept, probers=ALONE)
        assert to_ask(cases, alone, asked={}, fleet=1, now_s=4.9) == {}
        assert to_ask(cases, alone, asked={}, fleet=1, now_s=5.0).keys() == {ROUTE.id}
        case = after((0, alone), (6, view(kept, kept, probers=ALONE)))
        assert case is not None
        assert case.second == "prober p-1, the only one, failed again on a new connection"


class TestCase:
    @pytest.mark.parametrize(
        "own",
        [
            passed(ROUTE),
            failed(ROUTE, times=2),
            failed(ROUTE, age_s=121.0),
            failed(ROUTE, generation=4),
            None,
        ],
        ids=["passes", "within budget", "stale", "another session", "absent"],
    )
    def test_what_does_not_fail_is_no_case_any_more(self, own: StatusEvidence | None) -> None:
        assert after((0, view(by("p-1"))), (5, view(own))) is None

    def test_a_look_that_says_nothing_leaves_it_as_it_is(self) -> None:
        first = after((0, view(by("p-1"))))
        assert after((0, view(by("p-1"))), (5, view(own_fault(ROUTE)))) == first
        unreadable = view(None, unreadable=frozenset({ROUTE.id}))
        assert after((0, view(by("p-1"))), (5, unreadable)) == first

    def test_a_confirmation_does_not_outlive_a_pass(self) -> None:
        looks = [(0, view(by("p-1"))), (5, view(by("p-2"))), (10, view(passed(ROUTE)))]
        case = after(*looks, (60, view(by("p-2"))))
        assert case is not None
        assert case == Case(generation=case.generation, since_s=59.0, first="p-2")

    def test_a_confirmation_holds_for_two_minutes_and_then_another_is_needed(self) -> None:
        """S11: who gave it is not asked while it holds, and may see the route pass by now."""
        confirmed = [(0, view(by("p-1"))), (5, view(by("p-1"), by("p-2", times=1)))]
        alone = view(by("p-1", age_s=0.0))
        for at_s, second in ((124.9, "prober p-2 found the same as p-1"), (125.0, "")):
            case = after(*confirmed, (at_s, alone))
            assert case is not None
            assert case.second == second
            asked = to_ask({ROUTE.id: case}, alone, asked={}, fleet=20, now_s=at_s)
            assert bool(asked) is not bool(second)

    def test_who_took_a_confirmed_route_over_does_not_confirm_it_for_ever(self) -> None:
        """S11: the first witness may be gone, and then the second is the only one."""
        looks = [(at_s, view(by("p-2", age_s=0.0))) for at_s in range(5, 305, 5)]
        case = after((0, view(by("p-1"))), *looks)
        assert case is not None
        assert (case.first, case.second) == ("p-2", "")


class TestAsking:
    def asked(self, cases: dict[RouteId, Case], seen: BusView, size: int = 20) -> dict[Any, Any]:
        return to_ask(cases, seen, asked={}, fleet=size, now_s=9.0)

    def opened(self, routes: list[Route]) -> tuple[dict[RouteId, Case], BusView]:
        seen = a_view({r.id: failed(r, prober="p-1") for r in routes}, probers=HALVES)
        return follow({}, routes, seen, now_s=0), seen

    def test_the_second_id_falls_to_another_prober(self) -> None:
        """S11"""
        cases, seen = self.opened(fleet(8))
        asked = self.asked(cases, seen)
        assert asked.keys() == cases.keys()
        assert {partition_of(twin) for twin in asked.values()} <= HALVES["p-2"]

    def test_it_stays_while_its_prober_lives_and_moves_when_it_died(self) -> None:
        cases, seen = self.opened([ROUTE])
        first = self.asked(cases, seen)
        assert to_ask(cases, seen, asked=first, fleet=1, now_s=9.0) == first
        (twin,) = first.values()
        without = {"p-1": HALVES["p-1"], "p-3": HALVES["p-2"] - {partition_of(twin)}}
        moved = to_ask(cases, view(by("p-1"), probers=without), asked=first, fleet=1, now_s=9.0)
        assert moved[ROUTE.id] != twin

    def test_the_only_prober_is_asked_itself_and_nobody_is_where_none_lives(self) -> None:
        cases, _ = self.opened([ROUTE])
        assert self.asked(cases, view(by("p-1"), probers=ALONE))
        assert self.asked(cases, view(by("p-1"), probers={})) == {}

    def test_a_confirmed_case_is_asked_no_more(self) -> None:
        confirmed = {ROUTE.id: Case(generation=1, since_s=0, first="p-1", second="yes")}
        assert self.asked(confirmed, view(by("p-1"))) == {}

    @pytest.mark.parametrize(("size", "most"), [(100, ASKED_MIN), (1000, 50)])
    def test_extra_probes_in_failure_are_few(self, size: int, most: int) -> None:
        """S18"""
        cases, seen = self.opened(fleet(100))
        assert len(self.asked(cases, seen, size)) == most

    def test_ids_are_ids_and_nobody_elses(self) -> None:
        given = [next(second_ids(route.id)) for route in fleet(200)]
        assert len({*given, *(ReplicaId(r.id) for r in fleet(200))}) == 400
        assert list(second_ids(ROUTE.id)) == list(second_ids(ROUTE.id))


class TestContradiction:
    def test_a_route_that_another_prober_sees_pass_passes(self) -> None:
        """I3: it is a passing probe that says so."""
        other = passed(ROUTE, prober="p-2")
        assert evidence_of(ROUTE, view(by("p-1"), other)) == other
        assert evidence_of(ROUTE, view(by("p-1"), passed(ROUTE, prober="p-1"))) == by("p-1")
        assert evidence_of(ROUTE, view(by("p-1"), passed(ROUTE, prober="p-2", age_s=31.0))) == by(
            "p-1"
        )

    @pytest.mark.parametrize(
        ("contradicted", "confirmed", "void"), [(2, 0, 0), (3, 0, 1), (5, 3, 0)]
    )
    def test_a_prober_contradicted_again_and_again_is_believed_no_more(
        self, contradicted: int, confirmed: int, void: int
    ) -> None:
        routes = fleet(contradicted + confirmed)
        seen = a_view(
            {r.id: failed(r, prober="p-1") for r in routes},
            second={r.id: passed(r, prober="p-2") for r in routes[:contradicted]}
            | {r.id: failed(r, prober="p-2") for r in routes[contradicted:]},
            probers=HALVES,
        )
        cases = follow({}, routes, seen, now_s=0)
        assert len(distrusted(cases, routes, seen)) == void

    def test_bad_news_of_a_distrusted_prober_is_no_evidence_and_no_absence(self) -> None:
        """R-05"""
        seen = view(by("p-1"), distrusted=frozenset({"p-1"}))
        assert evidence_of(ROUTE, seen) is None
        assert blind_to(ROUTE, seen)
        good = view(passed(ROUTE, prober="p-1"), distrusted=frozenset({"p-1"}))
        assert evidence_of(ROUTE, good) is not None


@pytest.mark.parametrize(
    ("given", "fresh"),
    [
        ({"reason": Reason.CONNECT_TIMEOUT}, True),
        ({"reason": Reason.DNS_FAILED}, True),
        ({"reason": Reason.TLS_HANDSHAKE}, True),
        ({"reason": Reason.STATUS_UNEXPECTED}, False),
        ({"reason": Reason.STATUS_UNEXPECTED, "phases_ms": Phases(connect=0.3)}, True),
        ({"reason": Reason.RESPONSE_TIMEOUT, "phases_ms": Phases(first_byte=9.0)}, False),
    ],
)
def test_a_fresh_connection_shows_in_the_status(given: dict[str, Any], *, fresh: bool) -> None:
    assert on_fresh_connection(failed(ROUTE, **given).status) is fresh


def test_a_route_that_is_not_running_is_no_case() -> None:
    seen = view(by("p-1"))
    draining = a_route(1, status="terminating", health=Health.UNHEALTHY)
    assert follow({}, [draining], seen, now_s=0) == {}
