"""Every exception the control plane raises on purpose.

ControllerError
+-- InvalidInput        what a person asked for cannot be; names the value and the remedy
+-- NotFound            the thing named does not exist
+-- Conflict            the thing is in a state that does not allow this, or changed meanwhile
|   +-- Stale           it is not at the version that the caller decided on
+-- Denied              who asks may not do this, or did not say who it is
+-- LeaseLost           another controller leads: this one must stop writing
+-- Unreachable         a service did not answer
|   +-- DatabaseUnreachable
|   +-- ApiUnreachable
+-- ProvisionError      the provisioner refused or failed for one route
"""


class ControllerError(Exception):
    """Base of every exception raised on purpose; its text is one sentence with a remedy."""


class InvalidInput(ControllerError):  # noqa: N818 - reads as what it is, not as an accident
    """What a person asked for cannot be."""


class NotFound(ControllerError):  # noqa: N818
    """The thing named does not exist."""


class Conflict(ControllerError):  # noqa: N818
    """The thing is in a state that does not allow this, or changed meanwhile."""


class Stale(Conflict):
    """The thing is not at the version that the caller decided on."""


class Denied(ControllerError):  # noqa: N818
    """Who asks may not do this, or did not say who it is."""


class LeaseLost(ControllerError):  # noqa: N818
    """Another controller leads; this one must stop writing at once."""


class Unreachable(ControllerError):  # noqa: N818
    """A service did not answer."""


class DatabaseUnreachable(Unreachable):
    """The database did not answer."""


class ApiUnreachable(Unreachable):
    """The controller's HTTP API did not answer."""


class ProvisionError(ControllerError):
    """The provisioner refused, or failed for, one route."""
