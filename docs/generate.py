"""Fill the tables of the documentation from the code, between `<!-- generated: NAME -->` marks.

Run by hand after a change (`.venv/bin/python docs/generate.py`), and with `--check` by a test.
Where a table ends in a column that code does not know (what a field means), its cells are written
by people, kept by the first column, and missed when they are not there.
"""  # noqa: INP001 - a script beside the pages it fills, not a package

import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from inspect import getdoc
from typing import Final

import click
from litestar import HttpMethod

import controller.settings
import probe.settings
from controller.api.app import MODULES
from controller.api.routing import ROLE
from controller.definition.deployment_file import DeploymentFile
from controller.definition.request import RevisionRequest
from controller.definition.variants import ENGINES, RuntimeVariant
from controller.gauges import PUBLICATION_REFUSED
from controller.invariants import Invariant
from controller.metrics import ControllerMetrics, Publish
from controller.model import HealthCheck, Outcome, Policy, WeightStep
from controller.model_definition import Model, ModelHealthCheck, ModelService
from controller.reconcile.handler import Mark
from controller.reconcile.schedules import WAKES
from controller.rollout.rules import BACK
from controller.rollout.strategies import STRATEGIES
from controller.route.guard import Gate, HoldCause
from controller.settings import PERIODS
from docs.pictures import pictures
from docs.rollouts import rolling_bounds, rolling_trace, rules, strategy
from docs.rooms import contracts, floors, rooms
from docs.tables import (
    EMPTY,
    ROOT,
    code,
    constants,
    explained,
    fields,
    members,
    notes,
    struct,
    table,
)
from probe import specs, wire
from probe.http.pool import ConnectionEvent
from probe.ledger import OPERATIONS, PHASES
from probe.metrics import INSTRUMENTS, PREFIX
from probe.profiles import PROFILES
from probe.reasons import REASONS, OutcomeKind, Reason
from tests.fakes.replies import TABLE

PAGES: Final = (
    "api.md",
    "architecture.md",
    "conformance.md",
    "contract.md",
    "definitions.md",
    "lifecycle.md",
    "operations.md",
)
BLOCK: Final = re.compile(
    r"(?P<head><!-- generated: (?P<name>[\w-]+) -->\n)(?P<old>.*?)(?P<end><!-- end -->)", re.DOTALL
)
AGAIN: Final = "run .venv/bin/python docs/generate.py"
Build = Callable[[str], str]
"""From the block as it stands to the block as it should be."""


def settings(module: object, path: str, shared: Mapping[str, str], table_name: str) -> str:
    """Return the keys of one daemon's settings."""
    said, also = notes(path, "Settings"), {key: name for name, key in shared.items()}
    rows = []
    for key, kind, default, bounds in fields(getattr(module, "Settings")):  # noqa: B009 - of two modules
        name = key.strip("`")
        variables = (f"FLEETPULSE_{table_name.upper()}__{name.upper()}", also.get(name, ""))
        environment = " or ".join(map(code, filter(None, variables)))
        rows.append([key, kind, default, bounds, environment, said.get(name, "")])
    return table(("key", "type", "default", "bounds", "environment", "what it sets"), rows)


# The tables that are one of a kind.


def reasons() -> str:
    """Return the reason table, with what this version can come to."""
    used = "".join(
        path.read_text() for path in (ROOT / "probe").glob("**/*.py") if path.name != "reasons.py"
    )
    rows = [
        [code(r), e.layer, e.kind, "yes" if f"Reason.{r.name}" in used else "not yet", e.sentence]
        for r, e in REASONS.items()
    ]
    return table(("reason", "layer", "outcome", "given today", "sentence"), rows)


def api() -> str:
    """Return the paths of the HTTP API, with who may."""
    rows: list[list[object]] = []
    for module in MODULES:
        for each in module.HANDLERS:
            role = each.opt[ROLE]
            said = (getdoc(each.fn) or "").partition("\n")[0]
            for path in sorted(each.paths):
                shown = re.sub(r":\w+\}", "}", path)
                rows += (
                    [code(f"{method.value} {shown}"), role or "everybody", said]
                    for method in sorted(map(HttpMethod, each.http_methods))
                )
    return table(("path", "who", "what it does"), rows)


def conformance() -> str:
    """Return what three probers make of every reply."""
    found = tomllib.loads((ROOT / "docs" / "conformance.toml").read_text(encoding="utf-8"))
    rows = (
        [
            TABLE[name].what,
            *(
                " / ".join(dict.fromkeys(v) if len({*v}) == 1 else v)
                for v in (r["status"], r["body"])
            ),
            r.get("why", ""),
        ]
        for name, r in found.items()
    )
    return table(("reply", "by its status", "with a text in its body", "why ours differs"), rows)


def profiles() -> str:
    """Return the profiles, as a target may name them."""
    rows = []
    for name, profile in PROFILES.items():
        asked = [
            f"{c.method or 'method'} {c.path or 'health_path'}"
            if isinstance(c, specs.HttpCheck)
            else "connection"
            for c in profile.checks
        ]
        place = f"[documented]({profile.source})" if profile.source else "-"
        rows.append([code(name), ", ".join(map(code, asked)), profile.sentence, place])
    return table(("name", "asks", "what it is", "source"), rows)


def variants() -> str:
    """Return what each runtime variant brings."""
    rows = (
        [
            code(name),
            "-" if engine.port is None else engine.port,
            code(engine.health_path or "") or "-",
            "-" if engine.initial_delay_s is None else f"{engine.initial_delay_s:g}",
            code(" ".join(engine.start_command or ())) or "the image's own",
        ]
        if name is not RuntimeVariant.CUSTOM
        else [code(name), *["from the file"] * 2, f"{engine.initial_delay_s:g}", "from the file"]
        for name, engine in ENGINES.items()
    )
    head = ("variant", "port", "health path", "initial delay (s)", "start command")
    return table(head, rows)


def probe_metrics() -> str:
    """Return the prober's instruments."""
    rows = (
        [code(PREFIX + i.name), i.kind, ", ".join(map(code, i.labels)), i.help] for i in INSTRUMENTS
    )
    return table(("metric", "type", "labels", "what it says"), rows)


def controller_metrics() -> str:
    """Return the controller's instruments, as they show themselves."""
    rows = []
    for collector in tuple(ControllerMetrics().registry._collector_to_names):  # noqa: SLF001 - no public way
        for family in collector.collect():
            labels = getattr(collector, "_labelnames", ()) or getattr(family, "_labelnames", ())
            suffix = "_total" if family.type == "counter" else ""
            shown = ", ".join(map(code, labels))
            rows.append([code(family.name + suffix), family.type, shown, family.documentation])
    return table(("metric", "type", "labels", "what it says"), rows)


def label_values() -> str:
    """Return the closed sets that labels take their values from."""
    sets: dict[str, Iterable[str]] = {
        "`outcome` of a probe": OutcomeKind,
        "`outcome` of a rollout": Outcome,
        "`reason`": [f"{Reason.DNS_FAILED.value} … (every reason but OK)"],
        "`phase`": PHASES,
        "`op`": OPERATIONS,
        "`event`": ConnectionEvent,
        "`outcome` of a publish": Publish,
        "`kind`": (*HoldCause, PUBLICATION_REFUSED),
        "`handler`": PERIODS,
        "`invariant`": Invariant,
        "`strategy`": STRATEGIES,
    }
    return table(("label", "values"), ([k, ", ".join(map(code, v))] for k, v in sets.items()))


def handlers() -> str:
    """Return when each handler runs, and what wakes it."""
    rows = [
        [
            code(name),
            f"{period.long_s:g}",
            "-" if period.on_mark_s is None else f"{period.on_mark_s:g}",
            ", ".join(sorted(WAKES[name][0])) or "-",
            ", ".join(sorted(WAKES[name][1])) or "-",
        ]
        for name, period in PERIODS.items()
    ]
    return table(("handler", "every (s)", "on a mark (s)", "woken by", "wakes"), rows)


def log_events(old: str) -> str:
    """Return every event that a daemon logs."""
    found: dict[str, dict[str, str]] = {}
    for path in (*sorted(ROOT.glob("probe/**/*.py")), *sorted(ROOT.glob("controller/**/*.py"))):
        where = path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
        for level, name in re.findall(r"\b_?log\.(?!debug)(\w+)\(\s*\"(\w+)\"", path.read_text()):
            found.setdefault(name, {})[where] = level.replace("exception", "error")
    rows = (
        [code(name), "/".join(sorted({*said.values()})), ", ".join(said)]
        for name, said in found.items()
    )
    return explained(("event", "level", "said by", "what it means"), rows, old)


# The house.


BLOCKS: Final[Mapping[str, Build]] = {
    "api": lambda _: api(),
    "floors-probe": lambda _: floors("probe-layers"),
    "floors-controller": lambda _: floors("controller-layers"),
    "rooms-probe": lambda _: rooms("probe"),
    "rooms-controller": lambda _: rooms("controller"),
    "contracts": lambda _: contracts(),
    "constants": partial(constants, "probe/wire.py", wire),
    "target": partial(struct, wire.ReplicaProbeTarget),
    "tls": partial(struct, wire.TlsOptions),
    "status": partial(struct, wire.ReplicaHealthStatus),
    "phases": partial(struct, wire.Phases),
    "heartbeat": partial(struct, wire.ProberHeartbeat),
    "change": partial(struct, wire.HealthChange),
    "outcomes": lambda _: members(OutcomeKind, "probe/reasons.py"),
    "reasons": lambda _: reasons(),
    "conformance": lambda _: conformance(),
    "profiles": lambda _: profiles(),
    "http-check": partial(struct, specs.HttpCheck),
    "json-expectation": partial(struct, specs.JsonExpectation),
    "probe-metrics": lambda _: probe_metrics(),
    "controller-metrics": lambda _: controller_metrics(),
    "labels": lambda _: label_values(),
    "connection-events": lambda _: members(ConnectionEvent, "probe/http/pool.py"),
    "probe-settings": lambda _: settings(
        probe.settings,
        "probe/settings.py",
        probe.settings._LAYERS.shared_names,  # noqa: SLF001 - how the settings are gathered
        probe.settings.TABLE,
    ),
    "controller-settings": lambda _: settings(
        controller.settings,
        "controller/settings.py",
        controller.settings._LAYERS.shared_names,  # noqa: SLF001 - same
        "controller",
    ),
    "deployment-file": partial(struct, DeploymentFile),
    "policy": partial(struct, Policy),
    "revision": partial(struct, RevisionRequest),
    "health-check": partial(struct, HealthCheck),
    "variants": lambda _: variants(),
    "model": partial(struct, Model),
    "model-service": partial(struct, ModelService),
    "model-health-check": partial(struct, ModelHealthCheck),
    "handlers": lambda _: handlers(),
    "marks": lambda _: members(Mark, "controller/reconcile/handler.py"),
    "hold": lambda _: members(HoldCause, "controller/route/guard/causes.py"),
    "gates": lambda _: members(Gate, "controller/route/guard/budget.py"),
    "invariants": lambda _: members(Invariant, "controller/invariants.py"),
    "rolling-trace": lambda _: rolling_trace(),
    "rolling-bounds": lambda _: rolling_bounds(),
    **{f"strategy-{name}": partial(strategy, name) for name in STRATEGIES},
    "rules-back": lambda _: rules(BACK),
    "weight-step": partial(struct, WeightStep),
    "log-events": log_events,
}


def filled(page: str) -> str:
    """Return a page with every block as the code has it.

    Raises:
        KeyError: if the page names a block that nobody builds.
    """

    def build(block: re.Match[str]) -> str:
        return block["head"] + BLOCKS[block["name"]](block["old"]) + block["end"]

    return BLOCK.sub(build, page)


def complaints(name: str, page: str) -> Iterator[str]:
    """Yield what is wrong with a page as it stands."""
    if filled(page) != page:
        yield f"docs/{name} is not as the code has it: {AGAIN}"
    for line in page.splitlines():
        if EMPTY in line:
            yield f"docs/{name}: say what {line.split('|')[1].strip()} is"


@click.command()
@click.option("--check", is_flag=True, help="Change nothing; exit 1 when a page is not up to date.")
def main(*, check: bool) -> None:
    """Fill the generated tables of the documentation, and draw its pictures."""
    wrong: list[str] = []
    for name in PAGES:
        path = ROOT / "docs" / name
        page = path.read_text(encoding="utf-8")
        if not check:
            page = filled(page)
            path.write_text(page, encoding="utf-8")
        wrong += complaints(name, page)
    for path, picture in pictures().items():
        if not check:
            path.write_text(picture, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != picture:
            wrong.append(f"docs/plots/{path.name} is not what the simulator shows now: {AGAIN}")
    if wrong:
        raise click.ClickException("\n".join(wrong))


if __name__ == "__main__":
    main()
