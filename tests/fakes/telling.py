"""What `explain` is given in tests whatever it tells of: a clockwork, rows of history."""

from dataclasses import dataclass

from controller.explanation import Clockwork, Explanation
from controller.settings import PERIODS
from tests.fakes.nouns import NOW_MS

CLOCKWORK = Clockwork(
    period_s={name: period.long_s for name, period in PERIODS.items()},
    starting_timeout_s=1800,
    unregister_timeout_s=60,
    termination_grace_s=30,
)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of history."""

    category: str = "classify_health"
    from_state: str = "health:healthy"
    to_state: str = "health:unhealthy"
    result: str = "success"
    error_code: str = ""
    rule: str | None = None
    message: str = "as the test wants"
    attempts: int = 1
    updated_at_ms: int = NOW_MS - 250_000


def told(explanation: Explanation) -> str:
    """Return the sentences without their title."""
    return "\n".join(line[2:] for line in explanation.text.splitlines()[1:])
