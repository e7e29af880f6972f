"""What proxies may know, by what was committed for them and what was delivered.

Written by sync_proxy and its deliveries, read by drain: a replica is not stopped while a proxy may
still send to it (R-48). Lives for one term of leadership, and is in memory only: what it begins
with is read from the database.
"""

from collections.abc import Iterable, Mapping

from controller.model import DeploymentId, Route
from controller.route.table import Publication


class Registry:
    """Which routes a proxy may know of, by what was committed and what was delivered."""

    def __init__(self) -> None:
        self.newest: dict[DeploymentId, Publication] = {}
        """As committed."""
        self._delivered: dict[DeploymentId, Publication] = {}
        self.loaded = False

    def load(
        self, newest: Mapping[DeploymentId, Publication], undelivered: Iterable[DeploymentId]
    ) -> None:
        """Begin with what an earlier leader left."""
        behind = frozenset(undelivered)
        self.newest = dict(newest)
        self._delivered = {key: each for key, each in newest.items() if key not in behind}
        self.loaded = True

    def has(self, publication: Publication) -> bool:
        """Tell whether a table, or a newer one, is delivered."""
        known = self._delivered.get(publication.deployment_id)
        return known is not None and known.version >= publication.version

    def delivered(self, publication: Publication) -> bool:
        """Remember what the bus has now; tell whether that is news."""
        if self.has(publication):
            return False
        self._delivered[publication.deployment_id] = publication
        return True

    def knows(self, route: Route) -> bool:
        """Tell whether a proxy may still send requests to `route`, as far as it is up to us.

        It may while the newest table has it, or the one delivered last, or nobody can tell.
        """
        newest = self.newest.get(route.deployment_id)
        if newest is None:
            return not self.loaded
        delivered = self._delivered.get(route.deployment_id)
        if delivered is None:
            return True
        return route.id in newest.table.route_ids or route.id in delivered.table.route_ids
