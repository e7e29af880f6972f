"""Deployments in every state, with all that is known around each, as `explain` tells of them."""

from collections.abc import Sequence
from typing import Any

from controller.explanation import Explanation
from controller.model import (
    Deployment,
    Health,
    Lifecycle,
    Policy,
    Route,
    RouteStatus,
    SubStep,
    Traffic,
    WeightStep,
)
from controller.rollout.backoff import BackOff
from controller.rollout.explain import Scene, explain_deployment
from controller.route.gates import holds
from controller.route.guard import HoldCause
from tests.fakes.nouns import (
    NEW,
    NOW_MS,
    OLD,
    a_deployment,
    a_revision,
    a_rollout,
    a_route,
    deploying,
    fleet,
    warming,
)
from tests.fakes.telling import CLOCKWORK, Row

POLICY = Policy(surge=1, unavailable=0, rollout_timeout_s=600)


def explain(
    deployment: Deployment,
    routes: Sequence[Route],
    **given: Any,  # noqa: ANN401 - any field of a scene
) -> Explanation:
    known: dict[str, Any] = {"failed": 0, "history": (), "holds": (), "now_ms": NOW_MS + 90_000}
    return explain_deployment(
        Scene(deployment=deployment, routes=routes, clockwork=CLOCKWORK, **(known | given))
    )


def rolling(**given: Any) -> Deployment:  # noqa: ANN401 - any field of a deployment
    return deploying(policy=POLICY, **given)


def by(policy: Policy, **given: Any) -> Deployment:  # noqa: ANN401 - any field of a deployment
    return deploying(policy=policy, **({"sub_step": SubStep.PROGRESSING} | given))


CANARY = Policy(
    strategy="canary",
    steps=(WeightStep(weight_percent=10, pause_s=300), WeightStep(weight_percent=50, pause_s=60)),
)
HELD = tuple(holds({HoldCause.NO_PROBER}, held=True))
WAITING = Row(
    category="deploying",
    from_state="deploying/progressing",
    to_state="deploying/progressing",
    result="waiting",
    message="waiting: 1 of 3 replicas of revision 2 ready, 1 starting; 2 of others left, 2 of "
    "them ready",
    attempts=4,
    updated_at_ms=NOW_MS + 85_000,
)
PROMOTED = Row(
    category="deploying",
    from_state="deploying/progressing",
    to_state="ready",
    message="rolling update promoted: 3 of 3 replicas of revision 1 ready, 0 starting; none of "
    "another left; it took 41 s",
    updated_at_ms=NOW_MS,
)

CASES: dict[str, Explanation] = {
    "pending": explain(a_deployment(lifecycle=Lifecycle.PENDING, current=None), []),
    "ready": explain(a_deployment(), fleet(3), history=[PROMOTED]),
    "ready, and one is missing": explain(
        a_deployment(), [*fleet(2), a_route(3, status=RouteStatus.TERMINATING)]
    ),
    "ready, one is missing, and HOLD": explain(
        a_deployment(), fleet(2), holds=tuple(holds({HoldCause.NO_PROBER}, held=False))
    ),
    "ready, and its replicas end early": explain(
        a_deployment(),
        fleet(2),
        wait=BackOff(
            attempts=3,
            until_ms=NOW_MS + 105_000,
            message="3 attempts in a row ended early, the next in 15 s; the last: the session is "
            "exited: exited with code 1",
        ),
    ),
    "ready, and one too many": explain(a_deployment(), fleet(4)),
    "ready, and one has no traffic": explain(
        a_deployment(), [*fleet(2), a_route(3, traffic=Traffic.INACTIVE, traffic_ratio=0.0)]
    ),
    "ready, and one is not": explain(a_deployment(), fleet(3, bad=1)),
    "ready, external, and one is missing": explain(
        a_deployment(current=a_revision(1, external=True)), fleet(2)
    ),
    "provisioning": explain(rolling(), fleet(3)),
    "progressing": explain(
        rolling(sub_step=SubStep.PROGRESSING),
        [*fleet(2), a_route(3, revision_id=NEW.id), warming(4, revision_id=NEW.id)],
        history=[WAITING],
        failed=1,
    ),
    "progressing, and it may drain": explain(
        rolling(sub_step=SubStep.PROGRESSING), [*fleet(3), a_route(4, revision_id=NEW.id)]
    ),
    "progressing under HOLD": explain(
        rolling(sub_step=SubStep.PROGRESSING),
        [*fleet(3), a_route(4, revision_id=NEW.id, health=Health.NOT_CHECKED)],
        holds=HELD,
    ),
    "progressing, after a HOLD": explain(
        rolling(sub_step=SubStep.PROGRESSING),
        [*fleet(3), warming(4, revision_id=NEW.id)],
        still=lambda since_ms, until_ms: 30_000 if until_ms > since_ms else 0,
    ),
    "all is in place": explain(rolling(sub_step=SubStep.PROGRESSING), fleet(3, revision_id=NEW.id)),
    "external, and none is registered": explain(
        rolling(
            deploying=a_revision(2, external=True),
            rollout=a_rollout(POLICY),
        ),
        fleet(3),
    ),
    "rolling back": explain(
        rolling(sub_step=SubStep.ROLLING_BACK),
        [*fleet(2), a_route(3, revision_id=NEW.id, health=Health.UNHEALTHY)],
    ),
    "blue-green, waits for its delay": explain(
        by(Policy(strategy="blue-green", promote_delay_s=120)),
        [*fleet(3), *fleet(3, first=4, revision_id=NEW.id, ready_since_ms=NOW_MS + 30_000)],
    ),
    "blue-green, awaits its promotion": explain(
        by(Policy(strategy="blue-green", auto_promote=False), sub_step=SubStep.AWAITING_PROMOTION),
        [*fleet(3), *fleet(3, first=4, revision_id=NEW.id)],
    ),
    "canary, in a pause": explain(
        by(CANARY),
        [*fleet(3), *fleet(3, first=4, revision_id=NEW.id, traffic_ratio=0.1)],
    ),
    "paused": explain(
        by(POLICY, rollout=a_rollout(POLICY, paused_at_ms=NOW_MS + 60_000)),
        [*fleet(3), warming(4, revision_id=NEW.id)],
        history=[
            Row(
                category="deploying",
                rule="paused",
                from_state="deploying/progressing",
                to_state="deploying/progressing",
                result="waiting",
                message="paused: 0 of 3 replicas of revision 2 ready",
                attempts=6,
                updated_at_ms=NOW_MS + 85_000,
            )
        ],
    ),
    "ready, and the ones before are kept": explain(
        a_deployment(current=NEW, kept=OLD, kept_until_ms=NOW_MS + 810_000),
        [
            *fleet(3, revision_id=NEW.id),
            *fleet(3, first=4, traffic=Traffic.INACTIVE, traffic_ratio=0.0),
        ],
    ),
    "half a rollout": explain(rolling(rollout=None), fleet(3)),
    "destroying": explain(a_deployment(lifecycle=Lifecycle.DESTROYING), fleet(2), holds=HELD),
    "destroyed": explain(a_deployment(lifecycle=Lifecycle.DESTROYED), []),
}
