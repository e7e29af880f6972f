"""A route's version, as it is asked for and kept to."""

from controller.db.session import Database
from tests.fakes.api import an_api, asking

DEMO = "/v1/deployments/demo"


async def test_the_etag_of_a_route_is_what_a_change_of_it_keeps_to(database: Database) -> None:
    async with asking(an_api(database)) as client:
        await client.put(DEMO, json={"revision": {"external": True}})
        added = await client.post(f"{DEMO}/routes", json={"host": "10.0.0.7", "port": 80})
        assert added.status_code == 201
        route = f"/v1/routes/{added.json()['id']}"
        tag = (await client.get(route)).headers["etag"]
        assert tag == added.headers["etag"] == f'"{added.json()["version"]}"'
        stale = await client.post(f"{route}/drain", headers={"if-match": '"999"'})
        assert stale.status_code == 412
        drained = await client.post(f"{route}/drain", headers={"if-match": tag})
        assert drained.status_code == 200
        assert drained.headers["etag"] == (await client.get(route)).headers["etag"] != tag
