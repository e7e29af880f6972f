"""What one prober knows of itself, as plain numbers.

Written by the watch, the self-test, the landmarks and the refresher, each its own; read by stages,
the heartbeat and the metrics. Knows neither clocks nor how any of it is found out.
"""

from enum import StrEnum


class SelfTestResult(StrEnum):
    """What one self-test came to: a closed set, safe as a metric label."""

    RIGHT = "right"
    WRONG = "wrong"
    VOID = "void"
    """It could not ask, or stood still meanwhile: says nothing of its judgement."""


class Vitals:
    """See the module. Shares are 0 to 1; rates are per second."""

    def __init__(self) -> None:
        self.cut_off = False
        """No landmark answers while targets fail: it is our network, not theirs."""
        self.full = False
        """Intervals cannot be stretched any further: no target that nobody knows is taken on."""
        self.stretch = 1.0
        """What every interval is multiplied with."""
        self.busy = 0.0
        """Share of the last window in which the loop's thread ran, or waited for a CPU."""
        self.probes_per_s = 0.0
        self.possible_per_s = 0.0
        """How many probes a second this prober could make, by what one costs; 0: not known."""
        self.selftests: dict[str, int] = {result.value: 0 for result in SelfTestResult}
        self.landmarks_up = 0
        self.landmarks_down = 0
        self.partitions_owned = 0
        self.targets_adopted = 0
        """Watched because the prober that owns them does not."""
