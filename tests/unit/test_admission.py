"""By how much a prober stretches its intervals: rarely, evenly, and never past a status's life."""

import doctest
from itertools import pairwise

import pytest

from probe import selfcheck
from probe.schedule import admission
from probe.schedule.admission import (
    BUSY_GOAL,
    BUSY_HIGH,
    STEP_BACK,
    WINDOWS_OVER,
    WINDOWS_UNDER,
    Admission,
    Window,
    ceiling,
)
from probe.wire import status_ttl_s

CALM = Window(busy=0.3, lag_s=0.003)
CEILING = 3.9


def rounds(start: Admission, window: Window, count: int, *, top: float = CEILING) -> Admission:
    for _ in range(count):
        start = start.after(window, ceiling=top)
    return start


class Prober:
    """A prober whose CPU is `need` of a core at stretch 1: what the rule steers."""

    def __init__(self, need: float, *, settle: int = 0) -> None:
        self.need = need
        self.settle = settle
        self.admission = Admission()
        self.seen: list[float] = []
        self._followed: list[float] = [1.0]

    def run(self, seconds: int, *, top: float = CEILING) -> float:
        for _ in range(seconds):
            stretch = self._followed[max(0, len(self._followed) - 1 - self.settle)]
            wanted = self.need / stretch
            window = Window(min(1.0, wanted), 0.003 if wanted < 1 else 2.0)
            self.admission = self.admission.after(window, ceiling=top, settle=self.settle)
            self._followed.append(self.admission.stretch)
            self.seen.append(self.admission.stretch)
        return self.admission.stretch


def test_below_the_limit_nothing_is_stretched() -> None:
    assert Prober(BUSY_HIGH).run(600) == 1.0


@pytest.mark.parametrize("module", [admission, selfcheck], ids=lambda m: m.__name__)
def test_examples_hold(module: object) -> None:
    result = doctest.testmod(module)  # type: ignore[arg-type] # a module it is
    assert result.attempted > 2
    assert result.failed == 0


@pytest.mark.parametrize("windows", range(1, WINDOWS_OVER))
def test_a_short_burst_changes_nothing(windows: int) -> None:
    admitted = rounds(Admission(), Window(1.0, 1.0), windows)
    assert rounds(admitted, CALM, 1).after(Window(1.0, 1.0), ceiling=CEILING).stretch == 1.0


@pytest.mark.parametrize("settle", [0, 1, 10, 30])
@pytest.mark.parametrize("need", [0.95, 1.4, 2.5])
def test_overload_ends_within_headroom_and_does_not_swing(need: float, settle: int) -> None:
    prober = Prober(need, settle=settle)
    stretch = prober.run(60 * (settle + WINDOWS_OVER))
    assert need / BUSY_HIGH <= stretch <= 1.15 * need / BUSY_GOAL
    quiet = prober.seen[len(prober.seen) // 2 :]
    assert max(quiet) - min(quiet) <= 0.02 * stretch


def test_it_gives_back_what_is_no_longer_needed_step_by_step() -> None:
    prober = Prober(2.0)
    prober.run(60)
    prober.need = 0.5
    before = len(prober.seen)
    assert prober.run(20 * WINDOWS_UNDER) == 1.0
    steps = prober.seen[before - 1 :]
    assert all(b >= a * (STEP_BACK - 0.01) for a, b in pairwise(steps))


def test_lag_without_load_stretches_too() -> None:
    """Probes that wait for room: fewer at once is what helps."""
    assert rounds(Admission(), Window(0.1, 1.0), WINDOWS_OVER).stretch == pytest.approx(1.1)


def test_at_the_ceiling_it_is_full_and_stays_there() -> None:
    prober = Prober(20.0)
    assert prober.run(60, top=2.0) == 2.0
    assert prober.admission.full
    prober.need = 1.0
    prober.run(60, top=2.0)
    assert not prober.admission.full


def test_a_lower_ceiling_holds_at_once() -> None:
    """A target with a longer interval has come."""
    assert Admission(stretch=3.0).after(CALM, ceiling=2.0).stretch == 2.0


@pytest.mark.parametrize("interval_s", [0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 20.0, 21.0, 60.0, 600.0])
def test_no_status_expires_between_two_stretched_probes(interval_s: float) -> None:
    timeout_s, flush_s = 2.0, 0.2
    top = ceiling([(interval_s, timeout_s)], limit=100.0, flush_s=flush_s)
    probes = 3 if interval_s <= 20 else 1
    needed_s = probes * top * interval_s + timeout_s + flush_s
    assert needed_s <= status_ttl_s(interval_s) + 1e-6 or top == 1.0
    assert top > 1.5


def test_the_least_patient_target_sets_the_ceiling_and_the_operator_the_most() -> None:
    cadences = [(1.0, 1.0), (10.0, 2.0), (2.0, 1.0)]
    assert ceiling(cadences, limit=100.0, flush_s=0.2) == pytest.approx(117.8 / 30)
    assert ceiling(cadences, limit=2.0, flush_s=0.2) == 2.0
    assert ceiling([], limit=1.0, flush_s=0.2) == 1.0
