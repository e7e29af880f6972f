"""Tables as Envoy asks for them: endpoint discovery (EDS, v3), one response.

Served by the API; pure. Made of the committed tables and not of the routes, so that an Envoy sees
the same as a proxy on the bus, and what was refused is refused here as well (S16).
"""

import hashlib
from collections.abc import Collection, Iterable
from ipaddress import ip_address
from typing import Any, Final

import msgspec

from controller.route.table import ProxyRoute, ProxyTable

TYPE_URL: Final = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
WEIGHT: Final = 100
"""Of a route with all of its share; Envoy's weights are whole numbers from 1."""


def discovery_response(
    tables: Iterable[ProxyTable], *, wanted: Collection[str] = ()
) -> dict[str, Any]:
    """Return what answers a DiscoveryRequest for `wanted` clusters; none named means all.

    A cluster is called as its deployment. One whose last route left has no endpoints, which is not
    the same as not being there. The version is that of the content: the same is never new.
    """
    resources = [
        _assignment(table)
        for table in sorted(tables, key=lambda table: table.app)
        if not wanted or table.app in wanted
    ]
    digest = hashlib.sha256(msgspec.json.encode(resources)).hexdigest()
    return {"version_info": digest[:16], "type_url": TYPE_URL, "resources": resources}


def _assignment(table: ProxyTable) -> dict[str, Any]:
    endpoints = [_endpoint(route) for route in table.routes if route.ratio > 0 and _dialled(route)]
    return {
        "@type": TYPE_URL,
        "cluster_name": table.app,
        "endpoints": [{"lb_endpoints": endpoints}] if endpoints else [],
    }


def _dialled(route: ProxyRoute) -> bool:
    """Tell whether Envoy takes the host: one name in an assignment has it refuse the whole."""
    if route.host.startswith("unix:"):
        return True
    try:
        ip_address(route.host)
    except ValueError:
        return False
    return True


def _endpoint(route: ProxyRoute) -> dict[str, Any]:
    if route.host.startswith("unix:"):
        address: dict[str, Any] = {"pipe": {"path": route.host.removeprefix("unix:")}}
    else:
        address = {"socket_address": {"address": route.host, "port_value": route.port}}
    return {
        "endpoint": {"address": address},
        "load_balancing_weight": max(1, round(route.ratio * WEIGHT)),
    }
