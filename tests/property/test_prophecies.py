"""What `explain` says comes next is what the real handlers then do, and when they do it.

Any route, in any fleet, under any safety rule: explained as the leader would, and then the very
handlers of its next cycle decide over the same world.
"""

import re
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.db.explaining import Found
from controller.explaining import clockwork_of, deployment_scene, route_scene
from controller.explanation import Explanation
from controller.metrics import ControllerMetrics
from controller.model import (
    DeploymentId,
    Health,
    HoldSpan,
    Lifecycle,
    Policy,
    Route,
    RouteChange,
    RouteStatus,
    Stage,
    SubStep,
    Traffic,
)
from controller.onlooker import Sight
from controller.reconcile.deployments import CheckReplicas, Deploying, Destroying
from controller.reconcile.handler import DeploymentHandler, Plan, RouteHandler, Schedule, World
from controller.reconcile.health import CheckWarmingUp, ClassifyHealth, Evict
from controller.reconcile.observe import Velocity
from controller.rollout.explain import explain_deployment
from controller.route import guard
from controller.route.explain import explain_route
from controller.settings import Settings
from tests.fakes.failures import KnownFailures
from tests.fakes.nouns import (
    CHECK,
    COVERED,
    DEMO,
    NEW,
    NOW_MS,
    OLD,
    a_deployment,
    a_revision,
    a_route,
    a_view,
    deploying,
    failed,
    own_fault,
    passed,
    seconded,
    snapshot_of,
)

SETTINGS: Final = Settings()
TWICE: Final = msgspec.structs.replace(CHECK, healthy_threshold=2)
LOST: Final = a_revision(7)
"""A revision no pointer leads to."""
EXAMPLES: Final = 80
DONE: Final = ("started", "drained")
DUE: Final = re.compile(r"\((\w+), within")
"""What runs next, in the sentence of a step."""


def schedule(name: str) -> Schedule:
    return Schedule(period_s=SETTINGS.period(name).long_s)


def route_handlers() -> Sequence[RouteHandler]:
    return (
        CheckWarmingUp(schedule("check_warming_up")),
        ClassifyHealth(schedule("classify_health"), Velocity()),
        Evict(schedule("evict"), ControllerMetrics()),
    )


def deployment_handlers() -> Sequence[DeploymentHandler]:
    return (
        Deploying(schedule("deploying")),
        CheckReplicas(schedule("check_replicas"), KnownFailures()),
        Destroying(schedule("destroying")),
    )


def at_once(work: Coroutine[Any, Any, Plan]) -> Plan:
    """Return what a handler decides that asks nobody."""
    with pytest.raises(StopIteration) as end:
        work.send(None)
    plan = end.value.value
    assert isinstance(plan, Plan)
    return plan


def done(world: World, route: Route) -> Mapping[str, RouteChange]:
    """Return what the next cycle makes of a route, by handler."""
    changes: list[tuple[str, RouteChange]] = []
    for handler in route_handlers():
        plan = at_once(handler.decide(world, handler.select(world)))
        # Traffic alone follows from what others of the deployment do.
        changes += [(handler.name, c) for c in plan.changes if c.status or c.health]
    for over in deployment_handlers():
        for deployment in over.select(world):
            mine = [r for r in world.snapshot.routes if r.deployment_id == deployment.id]
            decision = over.decide(world, deployment, mine)
            changes += [(over.name, c) for c in (decision.routes if decision else ())]
    return {name: change for name, change in changes if change.route.id == route.id}


def prophecy(world: World, route: Route) -> Explanation:
    """Explain a route as the leader does."""
    scene = route_scene(found_in(world, route), route, Sight(world=world), clockwork_of(SETTINGS))
    return explain_route(scene)


def found_in(world: World, route: Route | None) -> Found:
    deployment = world.snapshot.deployments[DEMO]
    return Found(
        route=route,
        deployment=deployment,
        name=deployment.name,
        revision=1,
        history=(),
        spent=(),
        newly_unhealthy=0,
    )


def due(told: Explanation) -> set[str]:
    """Return the handlers that are said to change it at their next run, come what may."""
    return {
        name
        for step in told.next
        if step.within_s == 0.0 and "once nothing holds that" not in step.text
        for name in DUE.findall(step.text)
    }


@st.composite
def routes(draw: st.DrawFn, number: int) -> Route:
    age_ms = draw(st.sampled_from([5, 40, 61, 100, 400, 3000])) * 1000
    check = draw(st.sampled_from([CHECK, CHECK, CHECK, TWICE, None]))
    revision = draw(st.sampled_from([OLD, OLD, OLD, NEW, LOST]))
    running = draw(st.booleans()) or draw(st.booleans())
    ratio = draw(st.sampled_from([1.0, 1.0, 1.0, 0.0]))
    common: dict[str, Any] = {
        "health_check": check,
        "revision_id": revision.id,
        "created_at_ms": NOW_MS - age_ms - draw(st.sampled_from([0, 70_000])),
        "entered_at_ms": NOW_MS - age_ms,
        "traffic_ratio": ratio,
    }
    if running:
        health = Health.NOT_CHECKED if check is None else draw(st.sampled_from(Health))
        active = bool(ratio) and draw(st.booleans())
        return a_route(
            number,
            health=health,
            traffic=Traffic.ACTIVE if active else Traffic.INACTIVE,
            ready_since_ms=NOW_MS - age_ms if check is None or health is Health.HEALTHY else None,
            **common,
        )
    return a_route(
        number,
        status=RouteStatus.PROVISIONING,
        stage=Stage.WARMING_UP,
        health=Health.NOT_CHECKED,
        traffic=Traffic.INACTIVE,
        ready_since_ms=None,
        **common,
    )


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Draw a fleet of one deployment in any state, and what the leader knows of it."""
    given_: dict[str, Any] = {
        "cleanup_target_statuses": frozenset(
            draw(st.sampled_from([[Health.UNHEALTHY], [Health.UNHEALTHY, Health.DEGRADED], []]))
        ),
        "kept": draw(st.sampled_from([None, None, LOST])),
        "forced_until_ms": draw(st.sampled_from([None, None, NOW_MS + 60_000])),
    }
    policy = Policy(strategy=draw(st.sampled_from(["rolling", "blue-green"])), surge=1)
    lifecycle = draw(st.sampled_from([Lifecycle.READY, Lifecycle.DEPLOYING, *Lifecycle][:-1]))
    if lifecycle is Lifecycle.DEPLOYING:
        phase = draw(st.sampled_from([SubStep.PROGRESSING, SubStep.ROLLING_BACK]))
        deployment = deploying(3, policy=policy, sub_step=phase, **given_)
    else:
        current = None if lifecycle is Lifecycle.PENDING else OLD
        deployment = a_deployment(lifecycle=lifecycle, current=current, **given_)
    fleet = [draw(routes(number)) for number in range(1, 1 + draw(st.integers(1, 5)))]
    statuses = {
        route.id: said
        for route in fleet
        if route.health_check is not None
        and (
            said := draw(
                st.sampled_from(
                    [
                        None,
                        passed(route),
                        passed(route),
                        passed(route, consecutive_successes=1),
                        failed(route, times=1),
                        failed(route, times=9),
                        own_fault(route, times=9),
                        passed(route, age_s=400),
                    ]
                )
            )
        )
    }
    view = a_view(
        statuses,
        reachable=draw(st.sampled_from([True, True, True, False])),
        failed_looks=1,
        covered_for_s=draw(st.sampled_from([COVERED, COVERED, dict.fromkeys(COVERED, 10.0), {}])),
        clear_for_s=draw(st.sampled_from([600.0, 600.0, 90.0, 20.0])),
        held_before=draw(st.booleans()),
        cases=draw(st.sampled_from([{}, seconded(statuses)])),
        clocks_agree=draw(st.sampled_from([True, True, True, False])),
    )
    span = HoldSpan(
        deployment_id=draw(st.sampled_from([None, DEMO, DeploymentId("another")])),
        from_ms=NOW_MS - 90_000,
        to_ms=NOW_MS - 30_000,
    )
    snapshot = replace(
        snapshot_of(fleet, deployment), holds=draw(st.sampled_from([(), (), (span,)]))
    )
    settled = guard.settled(snapshot.routes, snapshot.deployments)
    return World(
        snapshot=snapshot,
        view=view,
        hold=guard.hold(
            settled, view, coverage=guard.coverage_percent(settled, view), newly_unhealthy=0
        ),
        held_deployments=guard.held_deployments(snapshot),
    )


def later(world: World, seconds: float) -> World:
    """Return the same world some time later, in which nobody learned anything new."""
    ms = int(seconds * 1000)
    return replace(
        world,
        snapshot=replace(world.snapshot, now_ms=world.snapshot.now_ms + ms),
        view=replace(world.view, clear_for_s=world.view.clear_for_s + seconds),
    )


@settings(max_examples=EXAMPLES)
@given(worlds())
def test_what_is_said_to_come_at_the_next_run_comes(world: World) -> None:
    """R-55"""
    for route in world.snapshot.routes:
        told, real = prophecy(world, route), done(world, route)
        assert due(told) <= real.keys(), (told.text, real)


@settings(max_examples=EXAMPLES)
@given(worlds())
def test_what_comes_at_the_next_run_was_said(world: World) -> None:
    """R-55"""
    for route in world.snapshot.routes:
        told, real = prophecy(world, route), done(world, route)
        assert due(told) or not real, (told.text, real)


@settings(max_examples=EXAMPLES)
@given(worlds())
def test_what_is_said_to_hold_it_holds_it(world: World) -> None:
    """R-55: and nothing is said to be held that nothing holds."""
    for route in world.snapshot.routes:
        told = prophecy(world, route)
        waits = [step.text for step in told.next if "once nothing holds that" in step.text]
        assert told.gates or not waits, told.text


@settings(max_examples=EXAMPLES)
@given(worlds())
def test_a_replica_is_given_up_when_it_was_said_to_be(world: World) -> None:
    """R-55, S15: the clock of warming up is the real one's."""
    for route in world.snapshot.routes:
        if route.stage is not Stage.WARMING_UP:
            continue
        for step in prophecy(world, route).next:
            if "it is given up in" in step.text and step.within_s is not None:
                before, after = (later(world, step.within_s + by) for by in (-1.0, 1.0))
                assert "check_warming_up" not in done(before, route), step.text
                assert "check_warming_up" in done(after, route), step.text


@settings(max_examples=EXAMPLES)
@given(worlds())
def test_a_deployment_is_said_to_be_held_when_its_rollout_is(world: World) -> None:
    """R-55, S21: the count of replicas is kept under HOLD, and nothing holds what is forced."""
    deployment = world.snapshot.deployments[DEMO]
    sight, clockwork = Sight(world=world), clockwork_of(SETTINGS)
    told = explain_deployment(deployment_scene(found_in(world, None), deployment, sight, clockwork))
    held = deployment.lifecycle is Lifecycle.DEPLOYING and world.frozen(DEMO)
    assert any(gate.name.startswith("HOLD") for gate in told.gates) is held, told.text


@settings(max_examples=EXAMPLES)
@given(worlds())
def test_a_deployment_is_told_what_its_next_run_does(world: World) -> None:
    """R-55: how many are started and sent away, and whether nothing changes at all."""
    deployment = world.snapshot.deployments[DEMO]
    told = explain_deployment(
        deployment_scene(
            found_in(world, None), deployment, Sight(world=world), clockwork_of(SETTINGS)
        )
    )
    runs = [h for h in deployment_handlers() if deployment in h.select(world)]
    made = [h.decide(world, deployment, world.snapshot.routes) for h in runs]
    real = next((decision for decision in made if decision is not None), None)
    gone = [] if real is None else [c for c in real.routes if c.status is RouteStatus.TERMINATING]
    text = told.next[0].text
    if deployment.lifecycle is Lifecycle.READY:
        started, drained = (re.findall(rf"(\d+) replicas? to be {w}", text) for w in DONE)
        assert [int(n) for n in started] == ([len(real.create)] if real and real.create else [])
        assert [int(n) for n in drained] == ([len(gone)] if gone else [])
    if real is not None and (real.create or real.routes or real.change is not None):
        assert not text.startswith("nothing"), (text, real)
        assert "waits for" not in text, (text, real)
