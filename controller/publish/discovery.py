"""Ready routes as Prometheus asks for them: HTTP service discovery, one document.

Served by the API; pure. Who is ready can answer a scrape: a route that still loads, or does not
answer, would only make a target that is down.
"""

from collections.abc import Iterable, Mapping
from typing import Final, TypedDict

from controller.model import Deployment, DeploymentId, Revision, RevisionId, Route

_META: Final = "__meta_fleetpulse"


class TargetGroup(TypedDict):
    """One element of the document."""

    targets: list[str]
    labels: dict[str, str]


def target_groups(
    deployments: Mapping[DeploymentId, Deployment], routes: Iterable[Route]
) -> list[TargetGroup]:
    """Return one group for each ready route that a scrape can reach, by deployment and route.

    Everything but the deployment's name is a meta label: Prometheus drops those unless somebody
    asks for them by relabelling, so that no series carries a replica's id by accident.
    """
    found = [
        (deployment.name, route.id, _group(deployment, route))
        for route in routes
        if route.ready
        and route.host is not None
        and route.port is not None
        and not route.host.startswith("unix:")
        and (deployment := deployments.get(route.deployment_id)) is not None
    ]
    return [group for _, _, group in sorted(found, key=lambda each: each[:2])]


def _group(deployment: Deployment, route: Route) -> TargetGroup:
    host = f"[{route.host}]" if ":" in (route.host or "") else route.host
    return TargetGroup(
        targets=[f"{host}:{route.port}"],
        labels={
            "deployment": deployment.name,
            f"{_META}_route": route.id,
            f"{_META}_revision": _number(deployment, route.revision_id),
            f"{_META}_traffic": route.traffic.value,
            f"{_META}_health": route.health.value,
        },
    )


def _number(deployment: Deployment, revision_id: RevisionId) -> str:
    """Return the number of a revision in use; of another, nothing."""
    known: tuple[Revision | None, ...] = (deployment.current, deployment.deploying)
    return next((str(r.number) for r in known if r is not None and r.id == revision_id), "")
