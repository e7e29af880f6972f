"""The live picture of a local stack: deployments with their replicas, rollouts, and the pulse."""

from collections import Counter
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from controller.model import Deployment, Lifecycle, Route, Snapshot
from controller.rollout.strategies import bounds_of
from controller.up.sight import Summary

_COLOURS = {
    "ready": "green",
    "warming_up": "cyan",
    "starting": "cyan",
    "pending": "cyan",
    "unhealthy": "red",
    "degraded": "yellow",
    "not_checked": "yellow",
    "draining": "magenta",
    "cooling_down": "magenta",
}


def state_of(route: Route) -> str:
    """Return the one word that says most about a route."""
    if route.ready:
        return "ready"
    return route.stage.value if route.stage else route.health.value


def picture(
    snapshot: Snapshot | None, summary: Summary, *, heading: Sequence[str]
) -> RenderableType:
    """Draw everything once."""
    pulse = Text.assemble(
        f"{summary.targets} targets  {summary.healthy} healthy  {summary.probes} probes "
        f"({summary.probes_per_second:g}/s)  {summary.rollouts} rollouts done  ",
        (
            f"{summary.invariant_violations} invariant violations",
            "bold red" if summary.invariant_violations else "dim",
        ),
    )
    lines: list[RenderableType] = [Text(line, style="dim") for line in heading]
    return Group(*lines, pulse, _table(snapshot) if snapshot else Text("starting"))


def _table(snapshot: Snapshot) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold dim")
    for column in ("deployment", "rev", "ready", "", "replicas", "rollout"):
        table.add_column(column, no_wrap=column != "replicas")
    for deployment in snapshot.deployments.values():
        routes = [r for r in snapshot.routes if r.deployment_id == deployment.id]
        ready, wanted = sum(r.ready for r in routes), deployment.target_count
        table.add_row(
            deployment.name,
            _revisions(deployment),
            f"{ready}/{wanted}",
            ProgressBar(total=max(1, wanted), completed=min(ready, wanted), width=24),
            _states(routes),
            _rollout(deployment, routes, now_ms=snapshot.now_ms),
        )
    return table


def _revisions(deployment: Deployment) -> str:
    numbers = [str(r.number) for r in (deployment.current, deployment.deploying) if r]
    return "\N{RIGHTWARDS ARROW}".join(numbers) or "-"


def _states(routes: Sequence[Route]) -> Text:
    counts = Counter(state_of(route) for route in routes)
    text = Text()
    for state, colour in _COLOURS.items():
        if counts[state]:
            text.append(f"{counts[state]} {state.replace('_', ' ')}  ", style=colour)
    return text


def _rollout(deployment: Deployment, routes: Sequence[Route], *, now_ms: int) -> str:
    rollout = deployment.rollout
    if deployment.lifecycle is not Lifecycle.DEPLOYING or rollout is None:
        return deployment.lifecycle.value
    new = sum(route.ready for route in routes if route.revision_id == rollout.revision_id)
    floor = bounds_of(rollout.policy, deployment.target_count).min_avail
    left_s = max(0, rollout.deadline_at_ms - now_ms) // 1000
    step = deployment.sub_step.value if deployment.sub_step else ""
    return f"{step}: {new}/{deployment.target_count} new ready, floor {floor}, {left_s} s left"
