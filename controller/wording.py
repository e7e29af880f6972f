"""Numbers and foreign text as people read them: durations, counts, one line.

Used wherever a sentence is made, so that a duration reads alike everywhere. Knows no noun.
"""

from typing import Final

_MINUTE_S: Final = 60
_HOUR_S: Final = 3600
_DAY_S: Final = 86_400


def span(seconds: float) -> str:
    """Return a duration with its two largest units.

    >>> span(3.4), span(250), span(7500), span(180_000)
    ('3 s', '4 min 10 s', '2 h 5 min', '2 d 2 h')
    >>> span(0.25), span(60), span(-1)
    ('0.2 s', '1 min', '0 s')
    """
    if 0 < seconds < 1:
        return f"{seconds:.1f} s"
    whole = max(0, round(seconds))
    for unit_s, unit, part_s, part in (
        (_DAY_S, "d", _HOUR_S, "h"),
        (_HOUR_S, "h", _MINUTE_S, "min"),
        (_MINUTE_S, "min", 1, "s"),
    ):
        if whole >= unit_s:
            rest = whole % unit_s // part_s
            return f"{whole // unit_s} {unit}" + (f" {rest} {part}" if rest else "")
    return f"{whole} s"


def replicas(count: int) -> str:
    """Return a count of replicas.

    >>> replicas(1), replicas(2)
    ('1 replica', '2 replicas')
    """
    return f"{count} replica" if count == 1 else f"{count} replicas"


def ago(ms: float) -> str:
    """Return how long ago something was.

    >>> ago(61_000)
    '1 min 1 s ago'
    """
    return f"{span(ms / 1000)} ago"


def one_line(text: str) -> str:
    """Return text on one line: what a replica said may hold a terminal's codes."""
    return "".join(letter if letter.isprintable() else " " for letter in text)
