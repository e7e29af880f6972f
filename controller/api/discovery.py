"""`/v1/sd/prometheus` and `/v1/proxy/envoy`: where replicas are, as others ask for it.

Envoy asks by POST at a path of its own choosing; what it is told is the same.
"""

from typing import Annotated, Any, Final

import msgspec
from litestar import HttpMethod
from litestar.di import NamedDependency
from litestar.params import JSONBody, Parameter

from controller.api.access import Role
from controller.api.bodies import JsonBody
from controller.api.routing import Asked, declare, looks
from controller.db.publications import Publications
from controller.publish.discovery import TargetGroup, target_groups
from controller.publish.envoy import discovery_response

CLUSTERS_MAX: Final = 10_000
Published = NamedDependency[Publications]


class DiscoveryRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What is read of Envoy's question; the rest of it says who asks and what it knows."""

    resource_names: Annotated[tuple[str, ...], msgspec.Meta(max_length=CLUSTERS_MAX)] = ()


@looks("/v1/sd/prometheus")
async def discover_for_prometheus(verbs: Asked) -> list[TargetGroup]:
    """List the ready routes as Prometheus's HTTP service discovery asks for them."""
    deployments = {each.id: each for each in await verbs.list_deployments()}
    return target_groups(deployments, await verbs.list_routes())


@looks("/v1/proxy/envoy")
async def discover_for_proxies(
    published: Published,
    cluster: Annotated[
        list[str] | None, Parameter(description="Only these deployments; repeatable.")
    ] = None,
) -> dict[str, Any]:
    """Show the published tables as Envoy's endpoint discovery (EDS v3) has them."""
    return await _tables(published, tuple(cluster or ()))


@declare("/v3/discovery:endpoints", HttpMethod.POST, Role.VIEWER, dto=JsonBody[DiscoveryRequest])
async def answer_envoy(published: Published, data: JSONBody[DiscoveryRequest]) -> dict[str, Any]:
    """Answer Envoy's endpoint discovery over REST (EDS v3)."""
    return await _tables(published, data.resource_names)


async def _tables(published: Publications, wanted: tuple[str, ...]) -> dict[str, Any]:
    found = (await published.load()).newest.values()
    return discovery_response((each.table for each in found), wanted=wanted)


HANDLERS: Final = (discover_for_prometheus, discover_for_proxies, answer_envoy)
