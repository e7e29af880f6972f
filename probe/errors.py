"""Every exception the prober raises on purpose.

A failed probe is not in this tree: it is an expected result, and a value (`probe.health.Outcome`).

    FleetpulseError
    +-- SettingsError         a setting that cannot work; names the key and the remedy
    +-- WireError             an entry on the bus that cannot be used; skipped and counted
    |   +-- MalformedEntry    not JSON, a missing field, a value out of range
    |   +-- UnknownVersion    well formed, but of a version this program does not speak
    |   +-- UnsupportedCheck  well formed, but asks for a check this program does not have
    +-- BusError              the bus did not do what was asked: never read as "absent"
        +-- BusUnreachable    no connection, or none in time
        +-- BusRefused        the bus answered with an error
"""


class FleetpulseError(Exception):
    """Base of every exception raised on purpose; its text is one sentence with a remedy."""


class SettingsError(FleetpulseError):
    """A setting that cannot work."""


class WireError(FleetpulseError):
    """An entry on the bus that cannot be used."""


class MalformedEntry(WireError):  # noqa: N818 - reads as what it is, not as an accident
    """An entry that does not decode: not JSON, a missing field, a value out of range."""


class UnknownVersion(WireError):  # noqa: N818
    """A well-formed entry of a schema version this program does not speak."""


class UnsupportedCheck(WireError):  # noqa: N818
    """A well-formed target that asks for a check this program does not have."""


class WorkerFailed(FleetpulseError):  # noqa: N818
    """A worker process ended in a way that another start would not mend."""


class BusError(FleetpulseError):
    """The bus did not do what was asked. Never means that a key is absent."""


class BusUnreachable(BusError):  # noqa: N818
    """No connection to the bus, or no answer in time."""


class BusRefused(BusError):  # noqa: N818
    """The bus answered with an error (READONLY, LOADING, OOM, NOPERM, WRONGTYPE, ...)."""
