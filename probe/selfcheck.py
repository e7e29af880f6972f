"""When a prober must not believe itself, or its network: decided here, found out elsewhere.

Pure. `Trust` counts self-tests to a verdict on ourselves; `network_gone` tells our network's
fault from theirs; `excused` says which results are void meanwhile.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from probe.health import Outcome, ended
from probe.reasons import OutcomeKind, Reason

WRONG_IN_A_ROW: Final = 2
"""One wrong verdict may be chance; two in 4 s are a prober that misjudges."""
RIGHT_IN_A_ROW: Final = 3
"""To be believed again."""
FAILED_SHARE: Final = 0.5
"""From this share of failing probes on, landmarks that are all silent mean our own network."""

_FAILED: Final = OutcomeKind.FAILED
_CUT_OFF: Final = "no landmark of this prober answers either: verdicts stay"


@dataclass(frozen=True, slots=True)
class Trust:
    """What the last self-tests make of us."""

    sick: str | None = None
    """Why we are not to be believed; None while we are."""
    wrong: int = 0
    right: int = 0

    def after(self, mistake: str | None) -> "Trust":
        """Return the trust after one more test: `mistake` says what was wrong in it, if anything.

        >>> Trust().after("good is bad").sick
        >>> Trust().after("good is bad").after("good is bad").sick
        'good is bad'
        """
        if mistake is not None:
            wrong = self.wrong + 1
            sick = self.sick if self.sick is not None or wrong < WRONG_IN_A_ROW else mistake
            return Trust(sick, wrong, 0)
        right = self.right + 1
        return Trust(None if right >= RIGHT_IN_A_ROW else self.sick, 0, right)


def network_gone(up: Sequence[bool], *, passed: int, failed: int, before: bool) -> bool:
    """Tell whether our own network is gone: every landmark is silent, and so is the fleet.

    `up` says which landmarks answered, `passed` and `failed` how the probes since then ended;
    while it is gone none of them counts as failed, so only a landmark ends it.

    >>> network_gone([False, False], passed=1, failed=9, before=False)
    True
    >>> network_gone([False, True], passed=0, failed=10, before=True)
    False
    """
    if not up or any(up):
        return False
    return before or (failed > 0 and failed >= FAILED_SHARE * (passed + failed))


def excused(outcome: Outcome) -> Outcome:
    """Return what an outcome is worth while our own network is gone.

    A replica that replied has been reached, so its reply counts; silence says nothing.

    >>> excused(ended(Reason.CONNECT_TIMEOUT)).reason
    <Reason.LOCAL_NETWORK: 'LOCAL_NETWORK'>
    """
    if outcome.kind is not _FAILED or outcome.http_status:
        return outcome
    detail = f"{outcome.reason.value}, and {_CUT_OFF}"
    return ended(Reason.LOCAL_NETWORK, detail=detail, total_s=outcome.total_s)
