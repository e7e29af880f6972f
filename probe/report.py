"""Where the time of a probe went, in the units of the contract.

Called by `probe.status_text` for what goes onto the bus and by `probe.commands.once` for what a
person reads. Times are cut, not rounded, to whole microseconds.
"""

from collections.abc import Mapping
from typing import Final

from probe.health import Outcome
from probe.wire import Phases

TRANSFER_MIN_S: Final = 10e-6
"""A reply that came whole was not transferred in any time worth a line."""
_TRANSFER_MIN_US: Final = int(TRANSFER_MIN_S * 1e6)


def phases_us(outcome: Outcome) -> Mapping[str, int]:
    """Return the phases of a probe after its start, in microseconds; 0 where one did not happen."""
    resolve, connect = int(outcome.resolve_s * 1e6), int(outcome.connect_s * 1e6)
    tls, first_byte = int(outcome.tls_s * 1e6), int(outcome.first_byte_s * 1e6)
    rest = int(outcome.total_s * 1e6) - resolve - connect - tls - first_byte
    return {
        "resolve": resolve,
        "connect": connect,
        "tls": tls,
        "first_byte": first_byte,
        "transfer": rest if first_byte and rest >= _TRANSFER_MIN_US else 0,
    }


def phases_of(outcome: Outcome) -> Phases:
    """Return where the time of a probe went, in milliseconds."""
    return Phases(**{name: us / 1e3 for name, us in phases_us(outcome).items()})
