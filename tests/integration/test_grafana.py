"""What Grafana and Prometheus are given can be asked, and there is something to answer."""

import json
import re
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, Final, NamedTuple

import anyio
import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase

from controller.db.session import open_database
from controller.gauges import DEPLOYMENT_UNREADABLE, PUBLICATION_REFUSED
from controller.metrics import ControllerMetrics, Publish
from controller.model import HealthCheck, Policy, RevisionSpec, SubStep
from controller.rollout.progress import Clock
from controller.route.guard import HoldCause
from controller.service import Service
from controller.up.stack import Stack
from probe.metrics import INSTRUMENTS, PREFIX, Kind
from probe.reasons import OutcomeKind, Reason
from tests.fakes.nouns import a_route, deploying, snapshot_of
from tests.fakes.prometheus import Prometheus, promtool

GRAFANA: Final = Path(__file__).parents[2] / "grafana"
RULES_FILE: Final = GRAFANA / "rules.yml"
RULES: Final[Sequence[Mapping[str, Any]]] = [
    rule for group in yaml.safe_load(RULES_FILE.read_bytes())["groups"] for rule in group["rules"]
]
DASHBOARD: Final[Mapping[str, Any]] = json.loads((GRAFANA / "fleetpulse.json").read_bytes())
PANELS: Final = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
WIDTH: Final = 24

VARIABLES: Final = {"$deployment": ".*", "$__rate_interval": "5s", "$__range": "1m"}
FROM_SCRAPING: Final = frozenset({"job", "instance"})
CLOSED: Final[Mapping[str, frozenset[str]]] = {
    "reason": frozenset(Reason),
    "kind": frozenset({*HoldCause, PUBLICATION_REFUSED, DEPLOYMENT_UNREADABLE}),
    "state": frozenset({"healthy", "unhealthy", "unknown", "ready", "down"}),
    "cause": frozenset({"late", "overlap", Clock.HELD, Clock.PAUSED, SubStep.AWAITING_PROMOTION}),
    "outcome": frozenset({*Publish, *OutcomeKind}),
    "result": frozenset({"written", "skipped", "failed"}),
}
"""The values that a matcher may ask for."""
QUIET: Final = frozenset(
    {
        *("evictions_total", "evictions_blocked_total", "targets_rejected_total"),
        *("stage_restarts_total", "reconcile_failures_total", "compare_and_set_lost_total"),
        "certificate_expiry_timestamp_seconds",
    }
)
"""Have no series while nothing is wrong, or nothing speaks TLS."""
DATA_WITHIN_S: Final = 45.0


class Question(NamedTuple):
    title: str
    expr: str

    @property
    def metrics(self) -> set[str]:
        """What it names, without the prefix; not what rules record."""
        return set(re.findall(rf"(?<!:)\b{PREFIX}(\w+)", re.sub(r'"[^"]*"', '""', self.expr)))

    @property
    def may_be_empty(self) -> bool:
        """Whether it is about trouble alone."""
        return bool(self.metrics & QUIET) or self.expr.endswith("> 0")


def asked(expr: str) -> str:
    """Put values in the place of Grafana's variables."""
    for name, value in VARIABLES.items():
        expr = expr.replace(name, value)
    assert "$" not in expr, expr
    return expr


def dashboard_questions() -> Iterator[Question]:
    for panel in PANELS:
        for target in panel["targets"]:
            yield Question(panel["title"], asked(target["expr"]))
    for annotation in DASHBOARD["annotations"]["list"]:
        yield Question(annotation["name"], asked(annotation["expr"]))


QUESTIONS: Final = tuple(dashboard_questions())
RULE_QUESTIONS: Final = tuple(
    Question(rule.get("alert") or rule["record"], rule["expr"]) for rule in RULES
)
EVERY: Final = (*QUESTIONS, *RULE_QUESTIONS)


def exposed() -> dict[str, set[str]]:
    """Return the names that the daemons expose, as they are asked for, and their labels."""
    found: dict[str, set[str]] = {}
    metrics = ControllerMetrics()
    metrics.observed(snapshot_of([a_route()], deploying()), hold=())
    families: list[tuple[str, str, Iterable[str]]] = [
        (instrument.name, instrument.kind.value, instrument.labels) for instrument in INSTRUMENTS
    ]
    for collector in tuple(metrics.registry._collector_to_names):
        if isinstance(collector, MetricWrapperBase):
            family = next(iter(collector.describe()))
            families.append((family.name, family.type, collector._labelnames))
        else:
            families.extend((f.name, f.type, f._labelnames) for f in collector.collect())  # type: ignore[attr-defined]
    for full_name, kind, labels in families:
        name = full_name.removeprefix(PREFIX)
        match kind:
            case Kind.HISTOGRAM:
                ends: Sequence[str] = ("_bucket", "_count", "_sum")
            case Kind.COUNTER:
                ends = ("" if name.endswith("_total") else "_total",)
            case _:
                ends = ("",)
        for end in ends:
            bound = {"le"} if end == "_bucket" else set()
            found.setdefault(name + end, set()).update(labels, bound)
    return found


def test_the_rules_are_sound() -> None:
    assert "SUCCESS" in promtool("check", "rules", RULES_FILE)


def test_every_expression_parses(tmp_path: Path) -> None:
    rules = [
        {"record": f"question_{n}", "expr": question.expr} for n, question in enumerate(QUESTIONS)
    ]
    file = tmp_path / "questions.yml"  # JSON is YAML
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert f"{len(QUESTIONS)} rules found" in promtool("check", "rules", file)


@pytest.mark.parametrize("question", EVERY, ids=lambda question: question.title)
def test_every_metric_and_label_asked_for_is_exposed(question: Question) -> None:
    names = exposed()
    assert question.metrics <= set(names)
    labels = set().union(*(names[name] for name in question.metrics)) | FROM_SCRAPING
    grouped = re.findall(r"\b(?:by|on) ?\(([^)]*)\)", question.expr)
    matched = re.findall(r'(\w+)\s*(?:=~|!=|!~|=)\s*"([^"]*)"', question.expr)
    used = {label.strip() for group in grouped for label in group.split(",")}
    assert used | {label for label, _ in matched} <= labels
    for label, pattern in matched:
        if label in CLOSED:
            for alternative in pattern.split("|"):
                assert any(re.fullmatch(alternative, value) for value in CLOSED[label])


@pytest.mark.parametrize("question", EVERY, ids=lambda question: question.title)
def test_counters_are_only_read_as_rates(question: Question) -> None:
    counters = {name for name in question.metrics if name.endswith(("_total", "_bucket"))}
    for name in counters:
        uses = re.findall(rf"(\w+)\(\s*{PREFIX}{name}\b", question.expr)
        assert set(uses) <= {"rate", "increase"}
        assert len(uses) == len(re.findall(rf"{PREFIX}{name}\b", question.expr))


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel_explains_itself(panel: Mapping[str, Any]) -> None:
    assert len(panel["description"]) > 60
    assert panel["fieldConfig"]["defaults"]["unit"]
    references = [target["refId"] for target in panel["targets"]]
    assert references == [chr(ord("A") + n) for n in range(len(references))]
    sources = [panel["datasource"], *(target["datasource"] for target in panel["targets"])]
    assert all(source["uid"] == "${datasource}" for source in sources)
    assert all(target["legendFormat"] for target in panel["targets"])


def test_panels_have_names_of_their_own_and_do_not_overlap() -> None:
    for key in ("id", "title"):
        assert max(Counter(panel[key] for panel in DASHBOARD["panels"]).values()) == 1
    taken = Counter(
        cell
        for place in (panel["gridPos"] for panel in DASHBOARD["panels"])
        for cell in product(
            range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])
        )
    )
    assert max(taken.values()) == 1
    assert max(x for x, _ in taken) < WIDTH


@pytest.mark.parametrize("alert", [r for r in RULES if "alert" in r], ids=lambda r: r["alert"])
def test_an_alert_says_what_it_means_and_is_in_the_list(alert: Mapping[str, Any]) -> None:
    severity = alert["labels"]["severity"]
    assert severity in {"critical", "warning"}
    assert len(alert["annotations"]["summary"]) > 15
    assert len(alert["annotations"]["description"]) > 150
    readme = (GRAFANA / "README.md").read_text(encoding="utf-8")
    assert f"| `{alert['alert']}` | {severity} |" in readme


def test_every_alert_is_in_the_runbook() -> None:
    """Each says what to look at, what that means, what to do."""
    page = (GRAFANA.parent / "docs" / "operations.md").read_text(encoding="utf-8")
    runbook = page.partition("\n## Runbook\n")[2].partition("\n## ")[0]
    chapters = runbook.split("\n### ")[1:]
    for name in (rule["alert"] for rule in RULES if "alert" in rule):
        named = [chapter for chapter in chapters if f"`{name}`" in chapter]
        assert named, name
        assert all(word in named[0] for word in ("*See:*", "*Means:*", "*Do:*")), name


def test_what_rules_ask_of_rules_is_recorded() -> None:
    recorded = {rule["record"] for rule in RULES if "record" in rule}
    used = re.findall(r"\w+:fleetpulse_\w+:\w+", " ".join(rule["expr"] for rule in RULES))
    assert set(used) == recorded


@pytest.fixture
async def stack() -> AsyncIterator[Stack]:
    """A live system with one deployment."""
    with tempfile.TemporaryDirectory(prefix="fp-") as directory:
        system = Stack(Path(directory))
        try:
            await system.start()
            yield system
        finally:
            system.stop()


async def deploy(stack: Stack) -> None:
    database = open_database(stack.database_url)
    await Service(database).apply_deployment(
        "demo",
        replicas=4,
        policy=Policy(),
        cleanup_target_statuses=frozenset(),
        revision=RevisionSpec(
            environment={"SIM_LOAD_S": "1"},
            health_check=HealthCheck(path="/health", interval_s=0.5, max_wait_time_s=1.0),
        ),
        actor="test",
    )
    await database.close()


@pytest.mark.slow
async def test_a_real_prometheus_has_an_answer_for_every_panel(
    stack: Stack, tmp_path: Path
) -> None:
    """R-67: what is exposed is what is asked for."""
    urls = {name: stack.metrics_url(name) or "" for name in ("prober", "controller")}
    since = time.time()
    async with Prometheus.scraping(urls, tmp_path, rules=RULES_FILE) as prometheus:
        await prometheus.has_scraped(jobs=len(urls))  # else the rollout might be over unseen
        await deploy(stack)
        unanswered = [question for question in QUESTIONS if not question.may_be_empty]
        with anyio.move_on_after(DATA_WITHIN_S):
            while unanswered:
                await anyio.sleep(0.5)
                now = time.time()
                for question in tuple(unanswered):
                    if await prometheus.series(question.expr, since=since, until=now):
                        unanswered.remove(question)
        assert not unanswered
        for question in QUESTIONS:
            await prometheus.series(question.expr, since=since, until=time.time())
        assert await prometheus.label_values("deployment", match="fleetpulse_targets") == ["demo"]
        rules = await prometheus.rules()
        assert {(rule["health"], rule.get("lastError", "")) for rule in rules} == {("ok", "")}
        assert not await prometheus.series("up == 0", since=since, until=time.time())
