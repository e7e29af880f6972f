"""Every handler is scheduled, and every mark that wakes one is set by somebody."""

import ast
import inspect
from collections.abc import Iterator

from controller.reconcile.handler import DeploymentHandler, FleetHandler, Mark, RouteHandler
from controller.reconcile.schedules import WAKES, schedule_of
from controller.settings import Settings
from tests.architecture.tree import modules, tree


def external_producers() -> Iterator[tuple[str, Mark]]:
    """Yield where a mark is set by something that is no handler: `….mark(Mark.X)`."""
    for path in modules("controller"):
        for node in ast.walk(tree(path)):
            match node:
                case ast.Call(
                    func=ast.Attribute(attr="mark"),
                    args=[ast.Attribute(value=ast.Name(id="Mark"), attr=name)],
                ):
                    yield f"{path}:{node.lineno}", Mark[name]


def names_below(
    handler: type[RouteHandler | DeploymentHandler | FleetHandler],
) -> Iterator[str]:
    """Yield the names of the product's handlers of one kind; other tests define their own."""
    for below in handler.__subclasses__():
        yield from names_below(below)
        if not inspect.isabstract(below) and below.__module__.startswith("controller."):
            yield below.name


def test_every_mark_has_a_consumer_and_a_producer() -> None:
    """R-49."""
    consumed = set().union(*(consumes for consumes, _ in WAKES.values()))
    produced = set().union(*(produces for _, produces in WAKES.values()))
    outside = {mark for _, mark in external_producers()}
    assert set(Mark) == consumed
    assert set(Mark) == produced | outside


def test_what_no_handler_can_know_is_marked_from_outside() -> None:
    """R-49: a verdict, a bus that forgot or is mute, an operator, a proxy told, a late word."""
    assert {mark for _, mark in external_producers()} == {
        Mark.HEALTH,
        Mark.TARGETS,
        Mark.DEPLOYMENTS,
        Mark.UNREGISTERED,
        Mark.DOUBT,
        Mark.ANSWERED,
    }


def test_every_handler_has_its_wakes_and_its_period_and_no_other_has() -> None:
    """R-49."""
    kinds = (RouteHandler, DeploymentHandler, FleetHandler)
    assert {name for kind in kinds for name in names_below(kind)} == WAKES.keys()
    for name, (consumes, produces) in WAKES.items():
        schedule = schedule_of(Settings(), name)
        assert schedule.period_s > 0
        assert schedule.consumes == consumes
        assert schedule.produces == produces
