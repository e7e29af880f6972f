"""What a run came to: its counts, what it broke, and whether it was as expected."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import msgspec
import structlog

from controller.simulate.play import Play
from controller.simulate.scenario import Ending, Scenario
from controller.simulate.timeline import Line, Sample
from controller.simulate.world import World


class DeploymentReport(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one deployment."""

    outcomes: tuple[str, ...]
    """Of its rollouts, the oldest first; `in_flight` for one that has not ended."""
    revision: int
    """The current one; 0 for none."""
    ready: int
    lowest_ready: int
    """Since it was complete for the first time."""
    highest_active: int
    rules: dict[str, int]
    """How often each rule decided."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """One run, in numbers."""

    title: str
    seed: int
    duration_s: float
    deployments: dict[str, DeploymentReport]
    evicted: int
    held: bool
    terms: int
    """How often a controller began to lead."""
    violations: tuple[str, ...]
    """What never may be, and was: each is a bug."""
    unexpected: tuple[str, ...]
    """Where the run did not come to what its scenario says."""

    @property
    def good(self) -> bool:
        """Tell whether nothing is wrong."""
        return not self.violations and not self.unexpected

    @property
    def summary(self) -> str:
        """Say it in one line."""
        rollouts = Counter(word for each in self.deployments.values() for word in each.outcomes)
        told = ", ".join(f"{count} {word}" for word, count in sorted(rollouts.items()))
        wrong = len(self.violations) + len(self.unexpected)
        verdict = "all invariants held" if not wrong else f"{wrong} things are wrong"
        return (
            f"{self.title} (seed {self.seed}): {self.duration_s:g} virtual seconds, "
            f"rollouts: {told or 'none'}; {self.evicted} evicted, {self.terms} terms; {verdict}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run: its report, and what the report was made of."""

    report: Report
    scenario: Scenario
    lines: tuple[Line, ...]
    text: tuple[str, ...]
    """The timeline for people."""
    samples: Mapping[str, tuple[Sample, ...]]


def run(scenario: Scenario, *, seed: int) -> Run:
    """Let a scenario happen once; the same seed, the same run."""
    speak = _quiet()
    try:
        world = World(scenario, seed=seed)
        Play(world).run()
    finally:
        speak()
    return _told(world)


_SILENT: Final = 50


def _quiet() -> Callable[[], None]:
    """Keep the coordinator from logging; return what gives its voice back.

    The lines of a run are its history; what the daemon would log has this machine's clock in it.
    """
    kept = structlog.get_config()
    silent = structlog.make_filtering_bound_logger(_SILENT)
    # Not cached: a logger met for the first time in a run would stay silent ever after.
    structlog.configure(wrapper_class=silent, cache_logger_on_first_use=False)
    return lambda: structlog.configure(**kept)


def _told(world: World) -> Run:
    scenario, timeline = world.scenario, world.timeline
    found = {name: _deployment(world, name) for name in scenario.deployments}
    report = Report(
        title=scenario.title,
        seed=world.seed,
        duration_s=scenario.duration_s,
        deployments=found,
        evicted=world.checks.evicted,
        held=world.was_held,
        terms=world.terms,
        violations=tuple(world.violations),
        unexpected=(),
    )
    unexpected = tuple(_differences(scenario, report))
    return Run(
        report=msgspec.structs.replace(report, unexpected=unexpected),
        scenario=scenario,
        lines=tuple(timeline.lines),
        text=tuple(timeline.text()),
        samples={name: tuple(each) for name, each in timeline.samples.items()},
    )


def _deployment(world: World, name: str) -> DeploymentReport:
    tables = world.rows.tables
    ids = {key for key, each in tables.deployments.items() if each.name == name}
    known = world.rows.deployment(name)
    current = None if known is None else known.current
    rollouts = [r for r in tables.rollouts.values() if r.deployment_id in ids]
    samples = world.timeline.samples.get(name, [])
    complete = next((n for n, s in enumerate(samples) if s.ready >= s.target > 0), len(samples))
    rules = Counter(line.rule for line in world.timeline.lines if line.about == name and line.rule)
    return DeploymentReport(
        outcomes=tuple(
            str(r.outcome) if r.outcome and r.ended_at_ms else "in_flight" for r in rollouts
        ),
        revision=0 if current is None else current.number,
        ready=sum(
            r.ready and current is not None and r.revision_id == current.id
            for r in tables.routes.values()
        ),
        lowest_ready=min((s.ready for s in samples[complete:]), default=0),
        highest_active=max((s.ready + s.coming for s in samples), default=0),
        rules=dict(sorted(rules.items())),
    )


def _differences(scenario: Scenario, report: Report) -> Iterator[str]:
    expect = scenario.expect
    for name in ("evicted", "held", "terms"):
        wanted, found = getattr(expect, name), getattr(report, name)
        if wanted is not None and wanted != found:
            yield f"{name}: {found}, expected {wanted}"
    for name, ending in expect.deployments.items():
        yield from (f"{name}: {what}" for what in _of_one(ending, report.deployments[name]))


def _of_one(ending: Ending, found: DeploymentReport) -> Iterator[str]:
    if ending.outcomes is not None and ending.outcomes != found.outcomes:
        yield f"rollouts ended {', '.join(found.outcomes)}; expected {', '.join(ending.outcomes)}"
    for name in ("revision", "ready"):
        wanted, is_ = getattr(ending, name), getattr(found, name)
        if wanted is not None and wanted != is_:
            yield f"{name} is {is_}, expected {wanted}"
    if ending.lowest_ready is not None and found.lowest_ready < ending.lowest_ready:
        yield f"{found.lowest_ready} ready at the lowest, expected {ending.lowest_ready}"
    if ending.highest_active is not None and found.highest_active > ending.highest_active:
        yield f"{found.highest_active} active at the highest, expected {ending.highest_active}"
    for rule in ending.rules:
        if rule not in found.rules:
            yield f"the rule {rule} never decided"
