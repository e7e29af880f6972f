"""The page: what it shows, and that nothing in it is anybody else's."""

from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser

import pytest

from controller.api.page import CSP, ROWS_MAX, Sight, Standing, page
from controller.db.events import HistoryEntry
from controller.model import DeploymentId, Health, Lifecycle, Policy
from controller.rollout import machine
from controller.rollout.outlook import nobody
from controller.rollout.progress import Progress, in_flight
from tests.fakes.nouns import NEW, NOW_MS, a_deployment, a_rollout, a_route, deploying, fleet

HOSTILE = """<script>alert(1)</script><img src=x onerror='y'>"&\u202e"""
WELL = Standing(leads=True, trouble=None, hold=())
NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


class Reader(HTMLParser):
    """Notes every tag, every attribute, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def an_event(message: str) -> HistoryEntry:
    return HistoryEntry(
        deployment_id=DeploymentId("gone"),
        category=message,
        from_state=message,
        to_state="ready",
        message=message,
        attempts=1,
        epoch=None,
        created_at_ms=0,
        updated_at_ms=0,
    )


def a_sight(**given: object) -> Sight:
    nothing = Sight(now=NOW, standing=WELL, deployments=(), routes=(), events=())
    return replace(nothing, **given)  # type: ignore[arg-type] # any field of a sight


def test_hostile_names_stay_text() -> None:
    standing = Standing(leads=True, trouble=None, hold=(HOSTILE,))
    rolling = replace(deploying(), name=HOSTILE)
    shown = page(
        a_sight(
            standing=standing,
            deployments=(rolling,),
            events=(an_event(HOSTILE),),
            rollouts=(a_progress(paused=True, name=HOSTILE),),
        )
    )
    trouble = page(a_sight(standing=Standing(leads=False, trouble=HOSTILE, hold=())))
    for text in (shown, trouble):
        read = Reader(text)
        assert not {"script", "img"} & set(read.tags)
        assert not [name for name, _ in read.attributes if name.startswith("on")]
        assert HOSTILE in read.text


def test_it_loads_nothing_and_runs_nothing() -> None:
    read = Reader(page(a_sight()))
    assert [value for name, value in read.attributes if name in {"src", "href"}] == [
        "/openapi.json"
    ]
    assert "script" not in read.tags
    assert not [name for name, _ in read.attributes if name == "style"]
    assert "script-src" not in CSP
    assert CSP.startswith("default-src 'none'; style-src 'sha256-")
    assert ("http-equiv", "refresh") in read.attributes, "it moves without JavaScript"


def test_the_fleet_is_counted_by_state() -> None:
    routes = (a_route(1), a_route(2, health=Health.UNHEALTHY), a_route(3, health=Health.DEGRADED))
    text = Reader(page(a_sight(routes=routes))).text
    for told in ("1ready", "3running", "1unhealthy", "1degraded"):
        assert told in text


def a_progress(*, paused: bool = False, name: str = "demo") -> Progress:
    policy = Policy(surge=1, unavailable=1, rollout_timeout_s=600)
    rollout = a_rollout(policy, paused_at_ms=NOW_MS + 60_000 if paused else None)
    cycle = machine.look(
        replace(deploying(replicas=4, rollout=rollout), name=name),
        [*fleet(3), a_route(4, revision_id=NEW.id)],
        NOW_MS + 90_000,
        failed=0,
        fresh=nobody(),
    )
    assert cycle is not None
    return in_flight(cycle, state="deploying/progressing")


def test_a_rollout_shows_its_strategy_its_limits_and_what_comes_next() -> None:
    text = Reader(page(a_sight(rollouts=(a_progress(),)))).text
    for told in (
        "1 → 2rollingprogressing1 / 4",
        "25 %",
        "4 / 3",
        "4 / 5",
        "8 min 30 s",
        "replace: starts 1 of revision 2 and drains 1 of others at its next run",
    ):
        assert told in text, told


def test_a_paused_rollout_says_how_to_go_on() -> None:
    text = Reader(page(a_sight(rollouts=(a_progress(paused=True),)))).text
    assert "9 min (paused)" in text
    assert "fleetpulse rollout resume demo" in text


def test_incidents_and_standbys_say_so() -> None:
    held = Standing(leads=True, trouble=None, hold=("bus_unreachable", "amnesia"))
    assert "HOLD: irreversible actions wait (amnesia, bus_unreachable)" in page(
        a_sight(standing=held)
    )
    standby = Standing(leads=False, trouble=None, hold=())
    assert "stands by" in page(a_sight(standing=standby))
    assert "no incident" in page(a_sight())


@pytest.mark.parametrize("count", [ROWS_MAX, ROWS_MAX + 7])
def test_a_large_fleet_is_cut_to_what_can_be_read(count: int) -> None:
    many = tuple(a_deployment(name=f"d{number}", replicas=0) for number in range(count))
    ill = a_deployment(name="the-ill-one", lifecycle=Lifecycle.DESTROYING)
    text = page(a_sight(deployments=(*many, ill)))
    assert "the-ill-one" in text, "worry comes first"
    assert text.count("<tr>") <= ROWS_MAX + 3
    assert f"and {count + 1 - ROWS_MAX} more" in text
