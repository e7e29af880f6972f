"""Routes in every state, with all that is known around each, as `explain` tells of them."""

from collections.abc import Mapping, Sequence
from typing import Any

from controller.explanation import Explanation
from controller.model import (
    Deployment,
    Health,
    Lifecycle,
    Route,
    RouteStatus,
    Stage,
    Traffic,
)
from controller.route.explain import explain_route
from controller.route.gates import Bars, Budget
from controller.route.guard import BusView, Gate, HoldCause, StatusEvidence
from controller.route.leave import leave
from controller.route.scene import Scene, Watcher
from probe.wire import Phases
from tests.fakes.nouns import (
    NEW,
    NOW_MS,
    a_deployment,
    a_revision,
    a_route,
    a_view,
    deploying,
    failed,
    own_fault,
    passed,
    warming,
)
from tests.fakes.telling import CLOCKWORK, Row

PHASES = Phases(connect=0.21, first_byte=1.5)


def bars(view: BusView, **given: Any) -> Bars:  # noqa: ANN401 - any field
    known: dict[str, Any] = {
        "hold": frozenset(),
        "held": False,
        "budget": Budget(fleet_spent=0, fleet_max=1, own_spent=0, own_max=1),
        "floor": 3,
        "ready": 3,
    }
    return Bars(view=view, **(known | given))


def explain(
    route: Route,
    evidence: StatusEvidence | None = None,
    *,
    deployment: Deployment | None = a_deployment(),  # noqa: B008 - frozen
    view: Mapping[str, Any] | None = None,
    barred: Mapping[str, Any] | None = None,
    history: Sequence[Row] = (),
    **given: Any,  # noqa: ANN401 - any field of a scene
) -> Explanation:
    statuses = {} if evidence is None else {route.id: evidence}
    known: dict[str, Any] = {
        "deployment": deployment,
        "name": "demo",
        "revision": 1,
        "watcher": Watcher(instance="prober-1"),
    }
    scene = Scene(
        route=route,
        history=history,
        now_ms=NOW_MS,
        bars=bars(a_view(statuses, **(view or {})), **(barred or {})),
        clockwork=CLOCKWORK,
        **(known | given),
    )
    return explain_route(scene)


def entered(seconds: float, **given: Any) -> Route:  # noqa: ANN401 - any field of a route
    return a_route(entered_at_ms=NOW_MS - int(seconds * 1000), **given)


PROVISIONING = {
    "status": RouteStatus.PROVISIONING,
    "health": Health.NOT_CHECKED,
    "traffic": Traffic.INACTIVE,
    "ready_since_ms": None,
}
TERMINATING = {"status": RouteStatus.TERMINATING, "traffic": Traffic.INACTIVE}
UNHEALTHY = Row(
    message="3 probes failed in a row (limit max_retries 3), the last one CONNECT_REFUSED: "
    "nothing listens on the port: starting, or exited",
    error_code="CONNECT_REFUSED",
)


def unhealthy(
    *,
    times: int = 25,
    traffic: Traffic = Traffic.ACTIVE,
    **given: Any,  # noqa: ANN401 - as of `explain`
) -> Explanation:
    """Explain a route that went UNHEALTHY and fails its probes still, so often in a row."""
    route = entered(3000, health=Health.UNHEALTHY, traffic=traffic)
    evidence = failed(a_route(), times=times, prober="prober-1")
    return explain(route, evidence, history=[UNHEALTHY], **given)


def created(seconds: float) -> Row:
    """Return the row of a route that was created so long ago."""
    return Row(
        category="create",
        from_state="",
        to_state="provisioning/pending",
        message="scaling out: 2 replicas of revision 1 active, 3 wanted",
        updated_at_ms=NOW_MS - int(seconds * 1000),
    )


CASES: dict[str, Explanation] = {
    "pending": explain(
        entered(4, stage=Stage.PENDING, host=None, port=None, **PROVISIONING),
        history=[created(4)],
    ),
    "pending, and the provisioner cannot be asked": explain(
        entered(65, stage=Stage.PENDING, host=None, port=None, **PROVISIONING),
        history=[
            Row(
                category="provision",
                from_state="provisioning/pending",
                to_state="provisioning/pending",
                result="failure",
                error_code="ProvisionError",
                message="the fleet does not answer on /run/fleet.sock",
                attempts=3,
                updated_at_ms=NOW_MS - 5_000,
            ),
            created(65),
        ],
    ),
    "starting": explain(
        entered(95, stage=Stage.STARTING, host=None, port=None, **PROVISIONING),
        history=[
            Row(
                category="provision",
                from_state="provisioning/pending",
                to_state="provisioning/starting",
                message="handed to the provisioner as session s-1",
                updated_at_ms=NOW_MS - 95_000,
            )
        ],
    ),
    "warming up, and failing": explain(
        warming(),
        failed(warming(), times=4, phases_ms=PHASES, prober="prober-1", latency_ms=1.7),
        history=[
            Row(
                category="check_starting",
                from_state="provisioning/starting",
                to_state="provisioning/warming_up",
                message="running at 127.0.0.1:8000, warming up",
                updated_at_ms=NOW_MS - 30_000,
            )
        ],
    ),
    "warming up under HOLD": explain(
        warming(),
        view={"reachable": False, "covered_for_s": {}},
        barred={"hold": frozenset({HoldCause.BUS_UNREACHABLE})},
        bus_trouble="the bus at redis://10.0.0.1:6379/0 does not answer",
        watcher=None,
    ),
    "warming up without a check": explain(warming(health_check=None)),
    "healthy": explain(
        entered(3000),
        passed(a_route(), phases_ms=PHASES, prober="prober-1"),
        history=[
            Row(
                category="check_warming_up",
                from_state="provisioning/warming_up health:not_checked traffic:inactive",
                to_state="running health:healthy traffic:active",
                message="first passing probe 3.2 s after it got its address "
                "(grace initial_delay_s 60)",
                updated_at_ms=NOW_MS - 3_000_000,
            )
        ],
    ),
    "healthy, but failing": explain(entered(3000), failed(a_route(), times=1, prober="prober-1")),
    "healthy, and HOLD keeps it so": explain(
        entered(3000),
        failed(a_route(), times=7, prober="prober-1"),
        barred={"hold": frozenset({HoldCause.BREAKER, HoldCause.VELOCITY})},
    ),
    "the prober's own fault": explain(entered(3000), own_fault(a_route(), times=0)),
    "unhealthy": unhealthy(barred={"ready": 2}),
    "unhealthy, and out of traffic": unhealthy(traffic=Traffic.INACTIVE),
    "unhealthy, and nothing but gates": unhealthy(
        times=2,
        view={"clear_for_s": 12.0},
        barred={
            "stays": frozenset({HoldCause.DEPLOYMENT_BREAKER, *Gate}),
            "budget": Budget(fleet_spent=1, fleet_max=1, own_spent=1, own_max=1),
        },
    ),
    "unhealthy, and HOLD": unhealthy(
        barred={
            "hold": frozenset({HoldCause.COVERAGE}),
            "stays": frozenset({HoldCause.COVERAGE}),
        },
    ),
    "unhealthy, and the policy keeps it": unhealthy(
        deployment=a_deployment(cleanup_target_statuses=frozenset())
    ),
    "unhealthy, and run by somebody else": unhealthy(
        deployment=a_deployment(current=a_revision(1, external=True))
    ),
    "degraded": explain(
        entered(3000, health=Health.DEGRADED),
        passed(a_route(), age_s=260),
        history=[
            Row(
                to_state="health:degraded",
                error_code="STATUS_EXPIRED",
                message="no fresh status for 120 s, though a prober covers its partition",
                updated_at_ms=NOW_MS - 140_000,
            )
        ],
    ),
    "degraded, and nobody looks": explain(
        entered(3000, health=Health.DEGRADED),
        view={"covered_for_s": {}},
        barred={"hold": frozenset({HoldCause.NO_PROBER, HoldCause.COVERAGE})},
        watcher=None,
    ),
    "not checked yet": explain(
        entered(40, health=Health.NOT_CHECKED),
        view={"covered_for_s": {}},
        watcher=Watcher(instance="prober-1", sick="it judged its own /200 as failed"),
    ),
    "unmanaged": explain(entered(3000, health=Health.NOT_CHECKED, health_check=None)),
    "of an earlier address": explain(
        entered(40), passed(a_route(port=8001)), watcher=Watcher(instance="p", interval_stretch=1.4)
    ),
    "an orphan": explain(
        entered(40),
        passed(a_route()),
        deployment=a_deployment(current=a_revision(3)),
        barred={"ready": 2},
    ),
    "an orphan in a rollout": explain(
        entered(40), passed(a_route()), deployment=deploying(current=a_revision(3))
    ),
    "of a deployment that goes": explain(
        entered(40),
        passed(a_route()),
        deployment=a_deployment(lifecycle=Lifecycle.DESTROYING),
        turn=leave(a_route(), category="destroying", message="as the test wants"),
    ),
    "makes way at once": explain(
        entered(40),
        passed(a_route()),
        deployment=deploying(),
        turn=leave(
            a_route(),
            category="deploying",
            message="makes way for revision 2: 4 are ready, at least 3 stay so (3 - unavailable 0)",
        ),
    ),
    "makes way later": explain(entered(40), passed(a_route()), deployment=deploying()),
    "without traffic in a rollout": explain(
        entered(40, revision_id=NEW.id, traffic=Traffic.INACTIVE, traffic_ratio=0.0),
        passed(a_route()),
        deployment=deploying(),
        revision=2,
    ),
    "degraded, and failing": explain(
        entered(3000, health=Health.DEGRADED), failed(a_route(), times=1, prober="prober-1")
    ),
    "warming up, and a HOLD was": explain(
        entered(100, stage=Stage.WARMING_UP, **PROVISIONING),
        failed(a_route(), times=4, prober="prober-1"),
        view={"clear_for_s": 20.0},
        still_ms=60_000,
    ),
    "draining": explain(
        entered(2, stage=Stage.DRAINING, health=Health.UNHEALTHY, **TERMINATING),
        history=[
            Row(
                category="evict",
                from_state="running traffic:active",
                to_state="terminating/draining traffic:inactive",
                error_code="HEALTH_POLICY",
                message="unhealthy, which cleanup_target_statuses of demo lists; at most 1 a "
                "minute here and 1 in the fleet, ready floor 3",
                updated_at_ms=NOW_MS - 2_000,
            )
        ],
    ),
    "cooling down": explain(entered(12, stage=Stage.COOLING_DOWN, **TERMINATING)),
    "terminated": explain(
        entered(7500, status=RouteStatus.TERMINATED, traffic=Traffic.INACTIVE),
        history=[
            Row(
                category="terminate",
                from_state="terminating/cooling_down",
                to_state="terminated",
                message="session stopped",
                updated_at_ms=NOW_MS - 7_500_000,
            )
        ],
    ),
    "terminated, and run by somebody else": explain(
        entered(7500, status=RouteStatus.TERMINATED, traffic=Traffic.INACTIVE),
        deployment=a_deployment(current=a_revision(1, external=True)),
    ),
    "failed to start": explain(
        entered(90, status=RouteStatus.FAILED_TO_START, host=None, port=None),
        deployment=None,
        history=[
            Row(
                category="provision",
                from_state="provisioning/pending",
                to_state="failed_to_start",
                error_code="PROVISION_REFUSED",
                message="the provisioner refused: no such image",
                updated_at_ms=NOW_MS - 90_000,
            )
        ],
    ),
}
