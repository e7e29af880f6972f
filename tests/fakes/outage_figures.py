"""How large and how long outages are, what is written down of each, and what is too much."""

from dataclasses import dataclass, field
from typing import Final

from tests.fakes.outage_rig import Size

HOLD_WITHIN_S: Final = 15.0
TARGETS_WITHIN_S: Final = 5.0
FRESH_WITHIN_S: Final = 25.0


@dataclass(frozen=True, kw_only=True)
class Durations:
    """How long each outage lasts, in seconds."""

    settle: float
    """Before the first one: until the controller would dare to evict."""
    bus: float
    flushes: int
    flush_gap: float
    probers: float
    database: float
    database_up: tuple[float, float]
    """How long it answers between two times that it does not."""
    database_down: tuple[float, float]
    isolated: float
    calm: bool
    """Whether HOLD must be over before the next one begins."""
    aftermath: float
    """How long is watched after each, for late consequences: evictions begin again after 120 s."""
    patience: float


REDUCED: Final = (
    Size(
        routes=24,
        deployments=3,
        probers=2,
        interval_s=1.0,
        timeout_s=1.0,
        max_retries=3,
        period_s=1.0,
    ),
    Durations(
        settle=0.0,
        bus=2.5,
        flushes=2,
        flush_gap=0.5,
        probers=2.0,
        database=3.0,
        database_up=(0.3, 0.6),
        database_down=(0.5, 1.0),
        isolated=2.0,
        calm=False,
        aftermath=0.5,
        patience=60.0,
    ),
)
FULL: Final = (
    Size(
        routes=400,
        deployments=20,
        probers=4,
        interval_s=5.0,
        timeout_s=2.0,
        max_retries=3,
        period_s=10.0,
    ),
    Durations(
        settle=45.0,
        bus=600.0,
        flushes=10,
        flush_gap=10.0,
        probers=300.0,
        database=300.0,
        database_up=(5.0, 40.0),
        database_down=(1.0, 8.0),
        isolated=120.0,
        calm=True,
        aftermath=150.0,
        patience=600.0,
    ),
)


@dataclass(slots=True)
class Outage:
    """What one outage came to."""

    name: str
    seconds: float = 0.0
    evicted_live: int = 0
    """Live replicas that left, of those there when it began."""
    lost_from_traffic: int = 0
    """The most of them that were out of traffic at once, at any look."""
    still_out: int = 0
    """Those of them out of traffic at the end."""
    unhealthy_max: int = 0
    """The most of them that were recorded UNHEALTHY at any look."""
    felt: float = 0.0
    """What shows that the outage was one; its meaning is the outage's."""
    hold_s: float | None = None
    targets_back_s: float | None = None
    fresh_s: float | None = None
    calm_s: float | None = None
    """From the end of the outage to the end of HOLD."""
    late: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Findings:
    """What one run came to."""

    routes: int
    database: str
    seconds: float = 0.0
    control_evicted_s: float | None = None
    """In full size: how long a replica that really fails lasted."""
    outages: dict[str, Outage] = field(default_factory=dict)
    evictions: dict[str, float] = field(default_factory=dict)
    """What the controller counted, by cause; the control's own among them."""
    violations: dict[str, float] = field(default_factory=dict)
    controller_starts: int = 0


def judge(found: Outage, name: str, most_s: float) -> None:
    value = getattr(found, name)
    if value is None or value > most_s:
        found.late.append(f"{name} {value}, at most {most_s:g}")


def is_bad(found: Findings) -> bool:
    """Tell whether something happened that must not."""
    return bool(found.violations) or any(
        outage.evicted_live > 0 or outage.still_out > 0 or outage.late
        for outage in found.outages.values()
    )
