"""Rolling updates from beginning to end: how many steps, how few ready, how many at once."""

from docs.rollouts import rolling_bounds
from tests.fakes.traces import TRACED, trace

STEPS = [3, 4, 8, 6, 20, 2, 4]
"""As many as the arithmetic of the bounds needs, worked out by hand; in the order of TRACED."""


def test_rolling_updates_never_leave_their_bounds_and_take_no_step_too_many() -> None:
    """R-11, I1, I2."""
    found = [trace(*given) for given in TRACED]
    print(f"\n{rolling_bounds()}")  # noqa: T201 - the figures
    assert [each.steps for each in found] == STEPS
    assert all(each.lowest_ready >= each.min_avail for each in found)
    assert all(each.highest_active <= each.max_total for each in found)
