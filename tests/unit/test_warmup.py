"""When a replica that is warming up may serve, and when it is given up."""

from typing import Any

import pytest

from controller.model import (
    Health,
    HealthCheck,
    Revision,
    Route,
    RouteChange,
    RouteStatus,
    Stage,
    Traffic,
)
from controller.route.guard import BusView, HoldCause, StatusEvidence
from controller.route.warmup import decide, traffic_when_ready
from tests.fakes.nouns import (
    CHECK,
    NEW,
    NOW_MS,
    OLD,
    a_deployment,
    a_view,
    deploying,
    failed,
    own_fault,
    passed,
    warming,
)

NO_HOLD: frozenset[HoldCause] = frozenset()


def after(
    warming_s: float,
    evidence: StatusEvidence | None,
    *,
    hold: frozenset[HoldCause] = NO_HOLD,
    check: HealthCheck | None = CHECK,
    **seen: Any,  # noqa: ANN401 - any field of a view
) -> RouteChange | None:
    """Decide over a route that has been warming up for so long; its grace is 60 s."""
    route = warming(entered_at_ms=NOW_MS - int(warming_s * 1000), health_check=check)
    statuses = {} if evidence is None else {route.id: evidence}
    view: BusView = a_view(statuses, **seen)
    return decide(route, a_deployment(), view, now_ms=NOW_MS, hold=hold)


@pytest.mark.parametrize("warming_s", [2, 59, 61, 3600])
def test_the_first_passing_probe_promotes_at_once(warming_s: float) -> None:
    """The delay is a grace period, not a delay before the first probe."""
    change = after(warming_s, passed(warming()))
    assert change is not None
    assert (change.status, change.stage) == (RouteStatus.RUNNING, None)
    assert (change.health, change.traffic) == (Health.HEALTHY, Traffic.ACTIVE)
    assert change.traffic_ratio == 1.0
    assert change.message == (
        f"first passing probe {warming_s:.1f} s after it got its address (grace initial_delay_s 60)"
    )


def test_without_a_health_check_there_is_nothing_to_wait_for() -> None:
    """R-03: such a route is unmanaged, and ready."""
    change = after(0, None, check=None, reachable=False)
    assert change is not None
    assert (change.status, change.health) == (RouteStatus.RUNNING, None)


def test_a_status_from_before_the_session_promotes_nobody() -> None:
    """R-44: its seq last moved 10 s ago, and the route got its address 5 s ago."""
    assert after(5, passed(warming(), age_s=10)) is None
    assert after(5, passed(warming(), age_s=1, generation=4)) is None


def test_promotion_takes_the_threshold() -> None:
    strict = HealthCheck(path="/health", healthy_threshold=3)
    young = passed(warming(), consecutive_successes=2)
    assert after(30, young, check=strict) is None
    assert after(30, passed(warming(), consecutive_successes=3), check=strict) is not None


def test_one_that_passes_but_not_often_enough_is_not_given_up() -> None:
    strict = HealthCheck(path="/health", healthy_threshold=3)
    assert after(99, passed(warming(), consecutive_successes=2), check=strict) is None


@pytest.mark.parametrize("evidence", [None, failed(warming()), failed(warming(), times=1)])
@pytest.mark.parametrize("warming_s", [0, 59, 60])
def test_within_its_grace_a_replica_may_fail_as_it_likes(
    warming_s: float, evidence: StatusEvidence | None
) -> None:
    assert after(warming_s, evidence) is None


def test_after_its_grace_without_a_passing_probe_it_is_given_up() -> None:
    change = after(60.5, failed(warming()))
    assert change is not None
    assert (change.status, change.stage) == (RouteStatus.TERMINATING, Stage.DRAINING)
    assert (change.traffic, change.error_code) == (Traffic.INACTIVE, "WARM_UP_EXPIRED")
    assert change.message == (
        "no passing probe in 60 s of warming up (limit initial_delay_s 60); the last one failed "
        "with CONNECT_REFUSED: nothing listens on the port: starting, or exited"
    )


def test_one_that_was_never_probed_says_so() -> None:
    """R-05."""
    change = after(61, None)
    assert change is not None
    assert change.message.endswith("it was never probed, though a prober covers its partition")


@pytest.mark.parametrize(
    "seen",
    [
        {"reachable": False},
        {"remembers_for_s": 1.0},
        {"covered_for_s": {}},
        {"unreadable": frozenset({warming().id})},
        {"hold": frozenset({HoldCause.COVERAGE})},
        {"clear_for_s": 59.0},
    ],
    ids=["bus away", "amnesia", "no prober", "slot unreadable", "hold", "just cleared"],
)
@pytest.mark.parametrize("evidence", [None, failed(warming())], ids=["absent", "failing"])
def test_the_clock_of_warming_up_runs_only_while_somebody_looks(
    evidence: StatusEvidence | None, seen: dict[str, Any]
) -> None:
    """R-05, S15: an outage gives nobody up, nor does its end."""
    assert after(3600, evidence, **seen) is None


def test_the_probers_own_fault_gives_nobody_up() -> None:
    """S1."""
    assert after(3600, own_fault(warming())) is None


def test_the_grace_of_a_slow_start_is_its_own() -> None:
    slow = HealthCheck(path="/health", initial_delay_s=1800)
    assert after(1800, failed(warming()), check=slow, clear_for_s=9999.0) is None
    assert after(1801, failed(warming()), check=slow, clear_for_s=9999.0) is not None


@pytest.mark.parametrize("hold", list(HoldCause))
def test_hold_stops_no_promotion(hold: HoldCause) -> None:
    """Additions go on: evidence of health is evidence."""
    assert after(5, passed(warming()), hold=frozenset({hold})) is not None


@pytest.mark.parametrize(
    ("route", "wanted"),
    [
        (warming(traffic_ratio=0.0), Traffic.ACTIVE),
        (warming(revision_id=NEW.id, traffic_ratio=1.0), Traffic.ACTIVE),
        (warming(revision_id=NEW.id, traffic_ratio=0.0), Traffic.INACTIVE),
    ],
    ids=["old", "new", "new, kept out"],
)
def test_traffic_is_what_the_strategy_wants(route: Route, wanted: Traffic) -> None:
    """R-33: a new replica that its rollout keeps out stays out, and no other."""
    assert traffic_when_ready(route, deploying()) is wanted


@pytest.mark.parametrize(
    ("current", "wanted"), [(NEW, Traffic.ACTIVE), (OLD, Traffic.INACTIVE)], ids=["new", "old"]
)
def test_a_replica_kept_out_gets_traffic_once_its_revision_serves_and_never_else(
    current: Revision, wanted: Traffic
) -> None:
    """R-33: also when its rollout was superseded, or ended while it was warming up."""
    route = warming(revision_id=NEW.id, traffic_ratio=0.0)
    assert traffic_when_ready(route, a_deployment(current=current)) is wanted
