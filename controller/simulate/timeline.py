"""What happened in a run, in order: lines for people, samples for the picture.

Times are virtual seconds since the start. Names of replicas are their deployment's and a number.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from controller.db.events import HistoryEntry
from controller.model import Deployment, RouteId
from controller.simulate.tables import Tables

NAMED: Final = 4
"""More replicas than this are not named one by one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One thing that happened."""

    at_s: float
    about: str
    """A deployment's name, or what of the world."""
    text: str
    kind: str
    """fault, verb, world, route, deployment, broken."""
    rule: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """How many replicas of one deployment there are from a moment on."""

    at_s: float
    ready_old: int
    ready_new: int
    coming: int
    leaving: int
    target: int
    floor: int

    @property
    def ready(self) -> int:
        """Return how many can serve."""
        return self.ready_old + self.ready_new


@dataclass(slots=True)
class Timeline:
    """All of it."""

    lines: list[Line] = field(default_factory=list)
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    numbers: dict[RouteId, str] = field(default_factory=dict)
    _made: Counter[str] = field(default_factory=Counter)

    def add(self, at_s: float, about: str, text: str, *, kind: str, rule: str = "") -> None:
        """Take down one thing."""
        self.lines.append(Line(at_s=at_s, about=about, text=text, kind=kind, rule=rule))

    def name_of(self, route_id: RouteId, deployment: str) -> str:
        """Return a replica's short name."""
        if route_id not in self.numbers:
            self._made[deployment] += 1
            self.numbers[route_id] = f"{deployment}/{self._made[deployment]}"
        return self.numbers[route_id]

    def committed(self, at_s: float, entries: list[HistoryEntry], tables: Tables) -> None:
        """Take down what one transaction recorded; equal changes of many replicas are one line."""
        together: dict[tuple[str, str, str], list[str]] = {}
        for entry in entries:
            name = tables.deployments[entry.deployment_id].name
            if entry.route_id is not None and entry.from_state != entry.to_state:
                short = self.name_of(entry.route_id, name)
                what = f"{entry.from_state or 'wanted'} -> {entry.to_state}"
                code = f" {entry.error_code}" if entry.error_code else ""
                together.setdefault((name, what, f"{entry.category}{code}"), []).append(short)
        for (name, what, why), shorts in together.items():
            self.add(at_s, name, f"{_some(shorts)} {what} ({why})", kind="route")
        for entry in entries:
            name = tables.deployments[entry.deployment_id].name
            rule = entry.rule or ""
            if entry.route_id is not None:
                continue
            if entry.from_state != entry.to_state:
                text = f"{entry.from_state} -> {entry.to_state}: {entry.message}"
                self.add(at_s, name, text, kind="deployment", rule=rule)
            elif rule:
                self.add(at_s, name, entry.message, kind="note", rule=rule)

    def sample(self, at_s: float, deployment: Deployment, tables: Tables, floor: int) -> None:
        """Take down the counts of one deployment, if they changed."""
        mine = [r for r in tables.routes.values() if r.deployment_id == deployment.id]
        new = None if deployment.deploying is None else deployment.deploying.id
        taken = Sample(
            at_s=at_s,
            ready_old=sum(r.ready and r.revision_id != new for r in mine),
            ready_new=sum(r.ready and r.revision_id == new for r in mine),
            coming=sum(r.active and not r.ready for r in mine),
            leaving=sum(not r.active for r in mine),
            target=deployment.target_count,
            floor=floor,
        )
        known = self.samples.setdefault(deployment.name, [])
        if not known or _counts(known[-1]) != _counts(taken):
            known.append(taken)

    def text(self) -> Iterator[str]:
        """Yield the lines for people; a wait that goes on is told once."""
        told: dict[str, str] = {}
        for line in self.lines:
            if line.kind == "note" and told.get(line.about) == line.rule:
                continue
            told[line.about] = line.rule if line.kind in ("note", "deployment") else ""
            rule = f" [{line.rule}]" if line.rule else ""
            yield f"{line.at_s:9.2f} s  {line.about:<12} {line.text}{rule}"


def _counts(sample: Sample) -> tuple[int, ...]:
    return (
        sample.ready_old, sample.ready_new, sample.coming, sample.leaving,
        sample.target, sample.floor,
    )  # fmt: skip


def _some(names: list[str]) -> str:
    if len(names) <= NAMED:
        return ", ".join(names)
    return f"{names[0]} and {len(names) - 1} others"
