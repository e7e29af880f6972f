"""The names of what a proxy reads on the bus, and how long each lives; for this room alone.

The prober needs none of it. Kept as one list, so that the rights in `deploy/valkey.acl` can be
compared with it.
"""

from typing import Final

from controller.model import DeploymentId

ROUTES_TTL_S: Final = 3600
"""Of every key of an endpoint: a proxy that starts within an hour of our death finds its routes.
Expiry means nobody refreshed it, never that a route or a ratio is gone (R-45)."""
EVENTS_MAX_LENGTH: Final = 10_000
"""Events are hints, and the keys are the truth: who missed so many reads all keys anyway."""
ROUTES_UPDATED: Final = "endpoint_route_list_updated"
STATUS_UPDATED: Final = "model_service_status_updated"


class ProxyKeys:
    """The names of one bus.

    >>> ProxyKeys("blue:").connection_info(DeploymentId("d"))
    'blue:endpoint.d.route_connection_info'
    """

    __slots__ = ("events", "prefix")

    def __init__(self, prefix: str = "") -> None:
        self.prefix = prefix
        self.events = f"{prefix}events"

    def connection_info(self, endpoint: DeploymentId) -> str:
        """Name where an endpoint's routes are."""
        return f"{self.prefix}endpoint.{endpoint}.route_connection_info"

    def traffic_ratio(self, endpoint: DeploymentId, session_id: str) -> str:
        """Name one session's share of an endpoint's traffic."""
        return f"{self.prefix}endpoint.{endpoint}.session.{session_id}.traffic_ratio"

    def health_check_enabled(self, endpoint: DeploymentId) -> str:
        """Name whether the endpoint's replicas are checked."""
        return f"{self.prefix}endpoint.{endpoint}.health_check_enabled"

    def health_check_config(self, endpoint: DeploymentId) -> str:
        """Name how they are."""
        return f"{self.prefix}endpoint.{endpoint}.health_check_config"
