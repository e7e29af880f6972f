"""What handlers of routes are given, and what they make of it."""

from collections.abc import Mapping
from dataclasses import replace

from controller.model import Route, RouteChange, RouteId, RouteStatus, Stage, Traffic
from controller.reconcile.handler import RouteHandler, World
from controller.reconcile.registry import Registry
from controller.route.table import Publication, table_of
from tests.fakes.nouns import NOW_MS, a_deployment, warming


def standing(stage: Stage, number: int = 1, *, age_s: float = 60.0) -> Route:
    """Build a route in one stage, for `age_s`."""
    leaving = stage in (Stage.DRAINING, Stage.COOLING_DOWN)
    status = RouteStatus.TERMINATING if leaving else RouteStatus.PROVISIONING
    return warming(number, status=status, stage=stage, entered_at_ms=NOW_MS - int(age_s * 1000))


def publication(generation: int, *routes: Route) -> Publication:
    """Build a table that was committed with these routes, as if they served."""
    serving = [
        replace(r, status=RouteStatus.RUNNING, stage=None, traffic=Traffic.ACTIVE) for r in routes
    ]
    deployment = a_deployment()
    return Publication(
        deployment_id=deployment.id,
        epoch=1,
        generation=generation,
        table=table_of(deployment, serving),
    )


def told(*publications: Publication) -> Registry:
    """Build a registry by which proxies were told all this."""
    registry = Registry()
    registry.load({each.deployment_id: each for each in publications}, ())
    return registry


async def changes_of(handler: RouteHandler, world: World) -> Mapping[RouteId, RouteChange]:
    plan = await handler.decide(world, handler.select(world))
    assert plan.notes == ()
    return {change.route.id: change for change in plan.changes}
