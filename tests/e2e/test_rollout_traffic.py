"""Rollouts under a steady stream of requests, each to a published route: not one fails.

Reduced by default; with FLEETPULSE_FULL=1 100 replicas and more stories, figures as JSON (`-s`).
"""

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import anyio
import msgspec
import pytest

from controller.db.asker import RolloutVerb
from controller.model import (
    HealthCheck,
    Lifecycle,
    Outcome,
    Policy,
    RevisionSpec,
    Snapshot,
    WeightStep,
)
from controller.up.stack import Stack
from tests.fakes.operator import Operator, all_ready, operating
from tests.fakes.stream import Stream, streaming

FULL: Final = os.environ.get("FLEETPULSE_FULL") == "1"
REPLICAS: Final = 100 if FULL else 8
RATE_PER_S: Final = 100.0 if FULL else 60.0
WITHIN_S: Final = 180.0 if FULL else 60.0
STILL_S: Final = 0.5
"""How long the stream flows before anything changes, and after."""
FEW_FAIL: Final = {"fault": "kill", "fault_every": "20" if FULL else "4"}
"""One in so many exits while it loads."""
NEVER_HEALTHY: Final = {"fault": "fail"}

ROLLING: Final = Policy(rollout_timeout_s=170)
BLUE_GREEN: Final = Policy(strategy="blue-green", rollout_timeout_s=170)
CANARY: Final = Policy(
    strategy="canary",
    rollout_timeout_s=170,
    steps=(WeightStep(weight_percent=10, pause_s=1), WeightStep(weight_percent=50, pause_s=1)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """A rollout, and how it ends."""

    policy: Policy
    sim: dict[str, str] = field(default_factory=dict)
    promoted: bool = True

    @property
    def name(self) -> str:
        """Return what tells it from the others."""
        return f"{self.policy.strategy}, {self.sim or 'all well'}"


def goes_back(policy: Policy) -> Story:
    """Return the story of a revision that never gets healthy; each try takes its whole grace."""
    tries = None if FULL else 0
    impatient = msgspec.structs.replace(policy, max_failed_replicas=tries)
    return Story(policy=impatient, sim=NEVER_HEALTHY, promoted=False)


STORIES: Final[Sequence[Story]] = (
    *((Story(policy=ROLLING), Story(policy=BLUE_GREEN)) if FULL else ()),
    Story(policy=ROLLING, sim=FEW_FAIL),
    Story(policy=BLUE_GREEN, sim=FEW_FAIL),
    Story(policy=CANARY),
    goes_back(ROLLING),
    goes_back(BLUE_GREEN),
    *((goes_back(CANARY),) if FULL else ()),
)
"""Those that go back come last: a controller turns no rollout back in its first half minute."""


@dataclass(slots=True)
class Count:
    """The fewest that were ready at any look, and the most that there were."""

    lowest: int = REPLICAS
    highest: int = REPLICAS

    def along(self, true: Callable[[Snapshot], bool]) -> Callable[[Snapshot], bool]:
        """Return a condition that counts at every look."""

        def seen(snapshot: Snapshot) -> bool:
            self.lowest = min(self.lowest, sum(route.ready for route in snapshot.routes))
            self.highest = max(self.highest, sum(route.active for route in snapshot.routes))
            return true(snapshot)

        return seen


async def apply(operator: Operator, policy: Policy, *, version: int, **sim: str) -> None:
    """Apply a revision whose replicas take 30 ms to answer."""
    environment = {"load_s": "0.3", "answer_s": "0.03"} | sim
    await operator.service.apply_deployment(
        "chat",
        replicas=REPLICAS,
        policy=policy,
        cleanup_target_statuses=frozenset(),
        revision=RevisionSpec(
            image=f"chat:{version}",
            environment={f"SIM_{key.upper()}": value for key, value in environment.items()},
            health_check=HealthCheck(
                path="/health",
                interval_s=1.0,
                max_wait_time_s=1.0,
                max_retries=3,
                initial_delay_s=(10.0 if FULL else 2.0) if sim == NEVER_HEALTHY else 30.0,
            ),
        ),
    )


def at_rest(snapshot: Snapshot) -> bool:
    """Tell whether as many as wanted serve, and none is on its way in or out."""
    (deployment,) = snapshot.deployments.values()
    quiet = deployment.lifecycle is Lifecycle.READY and len(snapshot.routes) == REPLICAS
    return quiet and all_ready(REPLICAS)(snapshot)


async def tell(operator: Operator, stream: Stream, story: Story, *, version: int) -> None:
    """Live through one rollout, and look at what the stream met."""
    before = {route.id for route in (await operator.snapshot()).routes}
    await operator.until(lambda _: stream.serving == before, within_s=WITHIN_S)
    stream.begin()
    count, began = Count(), time.monotonic()
    await apply(operator, story.policy, version=version, **story.sim)
    await operator.until(count.along(lambda seen: not at_rest(seen)), within_s=WITHIN_S)
    rested = await operator.until(count.along(at_rest), within_s=WITHIN_S)
    took_s = time.monotonic() - began
    await anyio.sleep(STILL_S)

    newest, *_ = await operator.service.list_rollouts("chat")
    figures = {
        "story": story.name,
        "replicas": REPLICAS,
        "seconds": round(took_s, 1),
        "outcome": newest.outcome,
        "lowest_ready": count.lowest,
        "highest_active": count.highest,
        "violations": operator.violations(),
    }
    print(json.dumps(figures | stream.figures()))  # noqa: T201 - the figures
    after = {route.id for route in rested.routes}
    assert stream.failures == {}, stream.told
    assert stream.fewest >= REPLICAS
    assert count.lowest >= REPLICAS
    if story.promoted:
        assert newest.outcome is Outcome.PROMOTED
        assert not before & after
    else:
        assert newest.outcome in (Outcome.ROLLED_BACK, Outcome.FAILED)
        assert before == after == stream.ever, "the old ones are not touched"
    if story.policy.strategy == "blue-green":
        assert all({*table.routes} in (before, after) for table in stream.tables), "I4"
    assert operator.violations() == 0


async def switch_back(operator: Operator, stream: Stream, *, version: int) -> None:
    """Promote a second set, and go back to the first one, which was kept."""
    blues = {*stream.serving}
    stream.begin()
    kept = msgspec.structs.replace(BLUE_GREEN, scale_down_delay_s=600)
    await apply(operator, kept, version=version)
    await operator.until(lambda _: not stream.serving & blues, within_s=WITHIN_S)
    began = time.monotonic()
    await operator.service.steer(
        "chat", RolloutVerb.ROLLBACK, actor="a-test", reason="it answers nonsense"
    )
    await operator.until(lambda _: stream.serving == blues, within_s=WITHIN_S)
    took_s = round(time.monotonic() - began, 1)  # now the greens are the ones that are kept
    await anyio.sleep(STILL_S)
    told = {"story": "blue-green, back to the blues", "replicas": REPLICAS, "seconds": took_s}
    print(json.dumps(told | stream.figures()))  # noqa: T201 - the figures
    assert stream.failures == {}, stream.told
    assert stream.fewest >= REPLICAS
    assert operator.violations() == 0


@pytest.mark.timeout(1200 if FULL else 240)
async def test_no_request_to_a_published_route_fails_whatever_becomes_of_a_rollout(
    stack: Stack,
) -> None:
    """R-32, R-33, R-47, R-48: all goes well, some do not start, or none ever gets healthy."""
    async with operating(stack) as operator:
        await apply(operator, ROLLING, version=1)
        await operator.until(at_rest, within_s=WITHIN_S)
        async with streaming(stack.redis_url, rate_per_s=RATE_PER_S) as stream:
            for version, story in enumerate(STORIES, start=2):
                await tell(operator, stream, story, version=version)
            await switch_back(operator, stream, version=len(STORIES) + 2)
        assert stream.failures == {}, "those on their way at the end"
