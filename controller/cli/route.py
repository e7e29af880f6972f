"""`fleetpulse route`: single replicas."""

import click

from controller.cli.place import Place, place_options
from controller.cli.session import json_option, reason_option, run, show, show_one
from controller.model import RouteId


@click.group()
def route() -> None:
    """List routes; register external replicas; take single ones out."""


@route.command(name="list")
@click.argument("deployment", required=False)
@place_options
@json_option
def list_(deployment: str | None, place: Place, as_json: bool) -> None:  # noqa: FBT001
    """List the routes of one deployment, or of all."""

    async def work() -> None:
        async with place.verbs() as verbs:
            routes = await verbs.list_routes(deployment)
            names = {d.id: d.name for d in await verbs.list_deployments()}
        rows = [
            {
                "id": one.id,
                "deployment": names.get(one.deployment_id),
                "status": one.status.value,
                "stage": one.stage and one.stage.value,
                "health": one.health.value,
                "traffic": one.traffic.value,
                "address": f"{one.host}:{one.port}" if one.host else None,
                "reason": one.reason,
            }
            for one in routes
        ]
        show(rows, as_json=as_json, nothing="no routes")

    run(work)


@route.command()
@click.argument("deployment")
@click.option("--host", required=True, metavar="HOST", help="An IP address the prober may dial.")
@click.option(
    "--port", required=True, type=int, metavar="PORT", help="Where it serves, 1 to 65535."
)
@reason_option
@place_options
@json_option
def register(
    deployment: str, *, host: str, port: int, reason: str, place: Place, as_json: bool
) -> None:
    """Add a replica that somebody else runs."""

    async def work() -> None:
        async with place.verbs() as verbs:
            added = await verbs.register_route(deployment, host=host, port=port, reason=reason)
        row = {
            "id": added.id,
            "address": f"{host}:{port}",
            "stage": added.stage and added.stage.value,
        }
        show_one(row, as_json=as_json)

    run(work)


@route.command()
@click.argument("route_id", metavar="ID")
@reason_option
@place_options
@json_option
def drain(*, route_id: str, reason: str, place: Place, as_json: bool) -> None:
    """Take one replica out, whatever its health; our own are replaced, external ones are not."""

    async def work() -> None:
        async with place.verbs() as verbs:
            left = await verbs.drain_route(RouteId(route_id), reason=reason)
        row = {
            "id": left.id,
            "status": left.status.value,
            "stage": left.stage and left.stage.value,
            "reason": left.reason,
        }
        show_one(row, as_json=as_json)

    run(work)
