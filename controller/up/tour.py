"""What `fleetpulse up` shows: deployments that load, serve, roll to new revisions, and break.

Plays the operator on a local stack, through the same service as the commands. Chance is allowed
here: this is a show, not a rule.
"""

import random
from collections.abc import Sequence
from typing import Final

from controller.errors import Conflict, ProvisionError
from controller.model import (
    Deployment,
    Health,
    HealthCheck,
    Lifecycle,
    Policy,
    RevisionSpec,
    RouteStatus,
    Snapshot,
    WeightStep,
)
from controller.provision.fleet.client import FleetClient
from controller.provision.fleet.replica import Fault
from controller.service import Service

PROBE_INTERVAL_S: Final = 1.0
ROLLOUT_EVERY_S: Final = 20.0
ROLLOUT_TAKES_S: Final = 15.0
"""None is started that could not end before the tour does; the canary takes about 8 s."""
SETTLE_S: Final = 2.0
"""How long everything serves before the first rollout."""
CHAOS_EVERY_S: Final = 3.0
_ALONE: Final = 3
"""Fewer replicas than this make one deployment."""
_LOAD_S: Final = {"chat-70b": 1.5, "embed": 0.8, "rerank": 0.4}
_TIMEOUT_S: Final = 600.0
_POLICIES: Final = {
    "chat-70b": Policy(rollout_timeout_s=_TIMEOUT_S),
    "embed": Policy(strategy="blue-green", rollout_timeout_s=_TIMEOUT_S),
    "rerank": Policy(
        strategy="canary",
        rollout_timeout_s=_TIMEOUT_S,
        steps=(WeightStep(weight_percent=10, pause_s=2), WeightStep(weight_percent=50, pause_s=2)),
    ),
}
"""One of each strategy."""


def shares(replicas: int) -> dict[str, int]:
    """Return how many replicas each deployment of the tour gets.

    >>> shares(500)
    {'rerank': 50, 'embed': 150, 'chat-70b': 300}
    >>> shares(2)
    {'chat-70b': 2}
    """
    if replicas < _ALONE:
        return {"chat-70b": replicas}
    rerank, embed = max(1, replicas // 10), max(1, 3 * replicas // 10)
    return {"rerank": rerank, "embed": embed, "chat-70b": replicas - rerank - embed}


class Tour:
    """The operator of a local stack; `now` is monotonic seconds."""

    def __init__(self, verbs: Service, fleet: FleetClient, *, replicas: int, chaos: bool) -> None:
        self._verbs = verbs
        self._replicas = replicas
        self._fleet = fleet
        self._chaos = chaos
        self._serving_since: float | None = None
        self._next_rollout_at = 0.0
        self._next_chaos_at = 0.0
        self._rollouts_started = 0

    async def begin(self) -> None:
        """Apply the deployments."""
        for name, count in shares(self._replicas).items():
            await self._verbs.apply_deployment(
                name,
                replicas=count,
                policy=_POLICIES[name],
                cleanup_target_statuses=frozenset({Health.UNHEALTHY}),
                revision=_revision(name, 1),
                actor="up",
            )

    async def go_on(self, snapshot: Snapshot, *, now: float, until: float) -> None:
        """Do what it is time for: a rollout when all serve, a fault when chaos is wanted."""
        deployments = tuple(snapshot.deployments.values())
        if not deployments or not _all_serve(snapshot):
            return
        if self._serving_since is None:
            self._serving_since = now
            self._next_rollout_at = now + SETTLE_S
            self._next_chaos_at = now + CHAOS_EVERY_S
        if now >= self._next_rollout_at and now + ROLLOUT_TAKES_S <= until:
            self._next_rollout_at = now + ROLLOUT_EVERY_S
            await self._roll(deployments[self._rollouts_started % len(deployments)])
        if self._chaos and now >= self._next_chaos_at:
            self._next_chaos_at = now + CHAOS_EVERY_S
            await self._break_one(snapshot)

    async def _roll(self, deployment: Deployment) -> None:
        number = (deployment.current.number if deployment.current else 0) + 1
        self._rollouts_started += 1
        try:
            await self._verbs.add_revision(
                deployment.name,
                _revision(deployment.name, number),
                auto_activate=True,
                actor="up",
            )
        except Conflict:  # somebody at another terminal was faster: theirs goes first
            self._rollouts_started -= 1

    async def _break_one(self, snapshot: Snapshot) -> None:
        running: Sequence[str] = [
            route.id for route in snapshot.routes if route.status is RouteStatus.RUNNING
        ]
        fault = random.choice((Fault.KILL, Fault.HANG, Fault.FAIL, Fault.FLAP))  # noqa: S311
        try:
            await self._fleet.inject([random.choice(running)], fault, seconds=2.0)  # noqa: S311
        except ProvisionError:  # the fleet itself is down: chaos enough
            return


def _all_serve(snapshot: Snapshot) -> bool:
    ready = sum(route.ready for route in snapshot.routes)
    wanted = sum(one.target_count for one in snapshot.deployments.values())
    at_rest = all(one.lifecycle is Lifecycle.READY for one in snapshot.deployments.values())
    return at_rest and ready >= wanted * 0.9 and wanted > 0


def _revision(name: str, number: int) -> RevisionSpec:
    return RevisionSpec(
        image=f"simulated/{name}:{number}",
        environment={"SIM_LOAD_S": str(_LOAD_S[name])},
        health_check=HealthCheck(
            path="/health",
            interval_s=PROBE_INTERVAL_S,
            max_wait_time_s=1.0,
            max_retries=3,
            initial_delay_s=60.0,
        ),
    )
