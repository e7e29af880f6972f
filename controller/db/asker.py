"""Who asks for a change, and the verbs that steer a rollout.

Used by the verbs, and by whoever offers them to a person; known to no table.
"""

from dataclasses import dataclass
from enum import StrEnum


class RolloutVerb(StrEnum):
    """What a person does to a rollout in flight, or to what the last one left.

    The value is its name in the audit log, in the history and in the API's path.
    """

    PAUSE = "pause"
    """Stop it where it is, and its clocks; refused where there is none, or it is rolling back."""
    RESUME = "resume"
    """Let a paused one go on; the time it stood does not count."""
    PROMOTE = "promote"
    """Let the new revision have all traffic without further delay, once all of it is ready."""
    RETRY = "retry"
    """Begin anew what the newest one gave up; refused where it did not."""
    ROLLBACK = "rollback"
    """Go back to what served before: abort the one in flight, or begin one that returns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asker:
    """Who wants it, and why."""

    actor: str
    reason: str

    def says(self, did: str) -> str:
        """Return the sentence for the history."""
        return f"{self.actor} {did}" + (f": {self.reason}" if self.reason else "")
