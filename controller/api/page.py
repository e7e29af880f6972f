"""`/`: what a person wants to see first, in one page that needs nothing but itself.

Only looks. Everything from outside is escaped; a browser is told to run and to load nothing.
"""

import base64
import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from typing import Final

from litestar import Response
from litestar.di import NamedDependency
from litestar.handlers import get

from controller.api.access import Role
from controller.api.routing import ROLE, Asked
from controller.db.events import HistoryEntry, deployment_state
from controller.db.feed import Feed
from controller.model import Deployment, DeploymentId, Health, Lifecycle, Route
from controller.rollout.progress import Clock, Progress
from controller.wording import span

REFRESH_S: Final = 5
ROWS_MAX: Final = 200
EVENTS: Final = 20
_STANDS: Final = {Clock.RUNS: "", Clock.HELD: " (HOLD)", Clock.PAUSED: " (paused)"}
_STYLE: Final = """\
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif; }
body { margin: 2rem auto; max-width: 72rem; padding: 0 1rem; }
h1 { font-size: 1.3rem; } h2 { font-size: 1.05rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .25rem .75rem .25rem 0; border-bottom: 1px solid #8884; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
ul.tiles { display: flex; flex-wrap: wrap; gap: .75rem; list-style: none; padding: 0; }
ul.tiles li { border: 1px solid #8886; border-radius: .4rem; padding: .4rem .9rem; }
ul.tiles b { display: block; font-size: 1.4rem; font-variant-numeric: tabular-nums; }
p.hold { border-left: .4rem solid #d33; padding: .5rem 1rem; background: #d332; }
p.calm { border-left: .4rem solid #393; padding: .5rem 1rem; }
progress { width: 10rem; } td.m { word-break: break-word; } .dim { opacity: .7; }
"""
_STYLE_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
CSP: Final = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How this controller stands."""

    leads: bool
    trouble: str | None
    """Why it is not ready, in a sentence."""
    hold: Collection[str]
    """The causes for which irreversible actions wait; only the leader knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What the page shows."""

    now: datetime
    standing: Standing
    deployments: Sequence[Deployment]
    routes: Sequence[Route]
    events: Sequence[HistoryEntry]
    rollouts: Sequence[Progress] = ()
    """Those in flight."""


StandingNow = Callable[[], Standing]


@get("/", opt={ROLE: Role.VIEWER}, include_in_schema=False, media_type="text/html")
async def overview(
    verbs: Asked, feed: NamedDependency[Feed], standing: NamedDependency[StandingNow]
) -> Response[str]:
    """Show the fleet by state, rollouts, and what happened last."""
    sight = Sight(
        now=datetime.now(tz=UTC),
        standing=standing(),
        deployments=await verbs.list_deployments(),
        routes=await verbs.list_routes(),
        events=await feed.latest(limit=EVENTS),
        rollouts=await verbs.rollouts_in_flight(limit=ROWS_MAX),
    )
    return Response(page(sight), headers={"content-security-policy": CSP})


def page(sight: Sight) -> str:
    """Return the page."""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="refresh" content="{REFRESH_S}">
<title>fleetpulse</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>fleetpulse</h1>
{_standing(sight.standing)}
{_fleet(sight.routes)}
<h2>Rollouts</h2>
{_rollouts(sight)}
<h2>Deployments</h2>
{_deployments(sight)}
<h2>Recent transitions</h2>
{_events(sight)}
<p class="dim">{sight.now:%Y-%m-%d %H:%M:%S} UTC, again every {REFRESH_S} s.
The API: <a href="/openapi.json">/openapi.json</a></p>
</body>
</html>
"""


def _standing(standing: Standing) -> str:
    if standing.trouble is not None:
        return f'<p class="hold">Not ready: {escape(standing.trouble)}</p>'
    if not standing.leads:
        return '<p class="calm">This controller stands by; who leads knows of incidents.</p>'
    if standing.hold:
        causes = escape(", ".join(sorted(standing.hold)))
        return f'<p class="hold">HOLD: irreversible actions wait ({causes}).</p>'
    return '<p class="calm">This controller leads; no incident.</p>'


def _fleet(routes: Sequence[Route]) -> str:
    health = Counter(route.health for route in routes if route.active)
    tiles = {"ready": sum(route.ready for route in routes)}
    tiles |= {status.value: count for status, count in Counter(r.status for r in routes).items()}
    tiles |= {each.value.replace("_", " "): health[each] for each in Health}
    cells = (f"<li><b>{count}</b>{escape(name)}</li>" for name, count in tiles.items())
    return f'<ul class="tiles">{"".join(cells)}</ul>'


def _rollouts(sight: Sight) -> str:
    if not sight.rollouts:
        return '<p class="dim">none in flight</p>'
    head = (
        "deployment",
        "revision",
        "strategy",
        "step",
        "new ready",
        "",
        "traffic to new",
        "ready / floor",
        "active / ceiling",
        "ends by itself in",
        "next",
    )
    return _table(head, map(_rollout, sight.rollouts))


def _rollout(progress: Progress) -> list[str]:
    limits, deadline, coming = progress.limits, progress.deadline, progress.outlook
    new, wanted = progress.ready_of("new"), progress.target
    numbers = (progress.from_number, progress.to_number)
    step = progress.state.rpartition("/")[2].replace("_", " ")
    return [
        escape(progress.deployment),
        " → ".join(str(number) for number in numbers if number is not None),
        escape(progress.strategy),
        escape(step),
        f"{new} / {wanted}",
        f'<progress max="{max(wanted, 1)}" value="{min(new, wanted)}"></progress>',
        f"{progress.traffic_percent} %",
        "" if limits is None else f"{limits.ready} / {limits.floor}",
        "" if limits is None else f"{limits.active} / {limits.ceiling}",
        "" if deadline is None else span(deadline.left_s) + _STANDS[deadline.clock],
        "" if coming is None else escape(coming.sentence),
    ]


def _deployments(sight: Sight) -> str:
    ready: Counter[DeploymentId] = Counter()
    active: Counter[DeploymentId] = Counter()
    for route in sight.routes:
        ready[route.deployment_id] += route.ready
        active[route.deployment_id] += route.active

    def calm(each: Deployment) -> bool:
        return each.lifecycle is Lifecycle.READY and ready[each.id] >= each.target_count

    shown = sorted(sight.deployments, key=lambda each: (calm(each), each.name))
    rows = [
        [
            escape(each.name),
            escape(deployment_state(each).replace("_", " ")),
            f"{ready[each.id]} / {each.target_count}",
            str(active[each.id]),
            "-" if each.current is None else str(each.current.number),
        ]
        for each in shown[:ROWS_MAX]
    ]
    more = len(shown) - len(rows)
    note = f'<p class="dim">and {more} more, all of them after these in order of worry</p>'
    head = ("deployment", "state", "ready / wanted", "active", "revision")
    return _table(head, rows) + (note if more else "")


def _events(sight: Sight) -> str:
    names = {each.id: each.name for each in sight.deployments}
    rows = [
        [
            f"{datetime.fromtimestamp(each.updated_at_ms / 1000, tz=UTC):%H:%M:%S}",
            escape(names.get(each.deployment_id, "-")),
            escape(each.route_id[:8] if each.route_id else ""),
            escape(each.category.replace("_", " ")),
            escape(_moved(each)),
            escape(each.message),
        ]
        for each in sight.events
    ]
    return _table(("at (UTC)", "deployment", "route", "by", "change", "what"), rows)


def _moved(event: HistoryEntry) -> str:
    if event.from_state == event.to_state:
        return event.result
    return f"{event.from_state or 'new'} → {event.to_state}".replace("_", " ")


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; its cells are escaped already."""
    top = "".join(f"<th>{name}</th>" for name in head)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


HANDLERS: Final = (overview,)
