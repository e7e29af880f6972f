"""The API's rules that hold on every path: who may, what is refused, and how it is told."""

import json
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Final

import httpx
import pytest
import structlog
from litestar import HttpMethod, Litestar

from controller import model
from controller.api import views
from controller.api.access import OPERATOR, Role
from controller.api.app import Api, only_pages
from controller.api.events import FOLLOWERS_MAX
from controller.api.gate import Access
from controller.api.routing import ROLE
from controller.client import ApiClient
from controller.db.events import HistoryEntry
from controller.db.repository import Repository
from controller.db.session import Database, open_database
from controller.errors import ApiUnreachable, Denied
from controller.service import Service
from tests.fakes.api import TOKENS, an_api, asking, pages, tokens_file
from tests.fakes.database import epoch, to_running  # noqa: F401 - a fixture
from tests.fakes.verbs import EXTERNAL, apply_demo

DEMO: Final = "/v1/deployments/demo"
CHAT: Final = {"replicas": 2, "revision": {"external": True, "health_check": {"path": "/health"}}}


@pytest.fixture
async def open_api(database: Database) -> AsyncIterator[httpx.AsyncClient]:
    async with asking(an_api(database)) as client:
        yield client


@pytest.fixture
def guarded(database: Database, tmp_path: Path) -> Api:
    return an_api(database, tokens=tokens_file(tmp_path))


def detail(response: httpx.Response, status: int) -> str:
    """Return the sentence of a problem."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    found = response.json()
    assert (found["status"], found["type"]) == (status, "about:blank")
    assert found["title"]
    return str(found["detail"])


def ways(app: Litestar) -> Iterator[tuple[str, str, Role | None]]:
    """Yield every method and path of an application, with who may."""
    for route in app.routes:
        for handler in getattr(route, "route_handlers", ()):
            methods = {HttpMethod(each) for each in handler.http_methods}
            if methods == {HttpMethod.OPTIONS}:  # litestar's own: tells the methods
                continue
            for method in methods:
                path = route.path_format.format(name="demo", route_id="r", rollout_id="r", number=1)
                yield method.value, path, handler.opt[ROLE]


class TestRoles:
    async def test_every_path_lets_in_whom_it_says_and_nobody_else(self, guarded: Api) -> None:
        """The whole table: every route of the application, asked as everybody."""
        asked = 0
        for method, path, needed in ways(guarded.app):
            if path == "/v1/events":  # never ends, see TestEvents
                continue
            for who, role in (("", None), ("vic", Role.VIEWER), ("ada", Role.OPERATOR)):
                async with asking(guarded, token=TOKENS.get(who)) as client:
                    got = (await client.request(method, path)).status_code
                asked += 1
                if needed is None or (role is not None and role.covers(needed)):
                    assert got not in (401, 403), (method, path, who, got)
                else:
                    assert got == (401 if role is None else 403), (method, path, who, got)
        assert asked > 60

    async def test_what_changes_something_is_for_operators(self, guarded: Api) -> None:
        for method, path, needed in ways(guarded.app):
            if method not in ("GET", "HEAD") and path != "/v3/discovery:endpoints":  # asks only
                assert needed is Role.OPERATOR, (method, path)
        open_paths = {path for _, path, needed in ways(guarded.app) if needed is None}
        assert open_paths == {"/livez", "/readyz"}

    async def test_the_actor_is_the_name_of_the_token(self, guarded: Api, service: Service) -> None:
        async with asking(guarded, token=TOKENS["ada"]) as client:
            await client.put(DEMO, json=CHAT, params={"reason": "a test"})
        (entry,) = await service.list_audit()
        assert (entry.actor, entry.verb, entry.reason) == ("ada", "apply", "a test")
        assert entry.detail["changes"] == ["created", "added revision 1", "activated revision 1"]

    async def test_a_browser_may_look_at_the_page_with_a_password_and_at_nothing_else(
        self, guarded: Api
    ) -> None:
        async with asking(guarded) as client:
            auth = ("anybody", TOKENS["ada"])
            assert (await client.get("/", auth=auth)).status_code == 200
            assert (await client.get("/v1/routes", auth=auth)).status_code == 401
            assert (await client.delete(DEMO, auth=auth)).status_code == 401
            refused = await client.get("/")
            assert refused.headers["www-authenticate"].startswith("Basic ")
            for nonsense in (b"Basic", b"Basic \xe9\xe9", b"Basic a", b"Basic /w=="):
                told = await client.get("/", headers={b"authorization": nonsense})
                assert told.status_code == 401, nonsense

    async def test_refused_tokens_are_told_once_and_never_shown(self, guarded: Api) -> None:
        with structlog.testing.capture_logs() as logs:
            async with asking(guarded, token="wrong-token-0123456789") as client:  # noqa: S106
                for _ in range(20):
                    assert (await client.get("/v1/routes")).status_code == 401
        assert [entry["event"] for entry in logs] == ["api_token_refused"]
        assert "wrong-token" not in json.dumps(logs)

    async def test_the_client_says_what_is_wrong_with_the_token(self, guarded: Api) -> None:
        async with asking(guarded) as http:
            with pytest.raises(Denied, match="a token is needed"):
                await ApiClient(http).list_routes()
        async with asking(guarded, token=TOKENS["vic"]) as http:
            with pytest.raises(Denied, match="'vic' is a viewer; this needs the role operator"):
                await ApiClient(http).delete("demo")


class TestProblems:
    @pytest.mark.parametrize(
        ("method", "path", "status", "says"),
        [
            ("GET", "/v1/nope", 404, "there is no '/v1/nope'; /openapi.json lists"),
            ("GET", "/v1/deployments/nope", 404, "there is no deployment 'nope'"),
            ("POST", "/v1/deployments/nope/rollout/pause", 404, "there is no deployment 'nope'"),
            ("POST", "/v1/deployments/demo/rollout/stop", 404, "there is no"),
            ("DELETE", "/v1/routes", 405, "use GET"),
            ("GET", "/v1/routes?limit=0", 422, "limit: .*found '0'"),
            ("GET", "/v1/routes?limit=10001", 422, "limit: .*<= 10000, found '10001'"),
            ("GET", "/v1/deployments/demo/history?limit=x", 422, "limit: .*found 'x'"),
            ("GET", f"/v1/routes?after={'0' * 36}", 422, "is gone meanwhile; begin"),
            ("DELETE", f"{DEMO}?reason=%07", 422, "reason: "),
            ("DELETE", f"{DEMO}?reason=why%0A", 422, "reason: "),
        ],
    )
    async def test_every_refusal_is_a_sentence_with_the_value(
        self, open_api: httpx.AsyncClient, method: str, path: str, status: int, says: str
    ) -> None:
        """R-08"""
        assert re.search(says, detail(await open_api.request(method, path), status))

    @pytest.mark.parametrize(
        ("body", "status", "says"),
        [
            (b"{", 400, "is not JSON"),
            (b"", 422, "the body is missing; send a JSON object"),
            (b"[" * 100_000, 400, "is not JSON"),
            (b'"\\ud800"', 400, "is not JSON"),
            (b"[]", 422, "the body: write an object"),
            (b'{"replcas": 1}', 422, "unknown key 'replcas'; did you mean 'replicas'"),
            (b'{"name": "other", "revision": {}}', 422, "'other' is not that of the path, 'demo'"),
            (b'{"revision": {"port": 0}}', 422, "revision.port: .*found 0"),
            (b'{"revision": {"vrsion": 1}}', 422, "unknown key 'vrsion'"),
            (b" " * 1_048_577, 413, "larger than 1 MiB"),
        ],
    )
    async def test_a_body_that_cannot_be_is_told_as_the_command_line_tells_it(
        self, open_api: httpx.AsyncClient, body: bytes, status: int, says: str
    ) -> None:
        """R-08: the names in the sentence are those that were sent."""
        assert re.search(says, detail(await open_api.put(DEMO, content=body), status))

    async def test_what_is_not_json_by_its_own_word_is_not_read(
        self, open_api: httpx.AsyncClient
    ) -> None:
        told = {"content-type": "application/x-www-form-urlencoded"}
        refused = await open_api.put(DEMO, content=b"{}", headers=told)
        assert "send application/json" in detail(refused, 415)

    async def test_a_database_that_is_away_is_503_with_a_time_to_come_back(
        self, tmp_path: Path
    ) -> None:
        away = open_database(f"sqlite:///{tmp_path}/none.db")
        api = an_api(away)
        async with asking(api) as client:
            for method, path, needed in ways(api.app):
                if needed is None or path in ("/openapi.json", "/metrics"):
                    continue
                body = {"PUT": CHAT, "PATCH": {"replicas": 1}}.get(method)
                response = await client.request(method, path, json=body)
                if response.status_code == 422:  # refused before anything is asked of it
                    continue
                assert "cannot be opened" in detail(response, 503), (method, path)
                assert response.headers["retry-after"] == "2"
            with pytest.raises(ApiUnreachable, match="503"):
                await ApiClient(client).list_routes()
        await away.close()

    async def test_a_fault_of_ours_is_500_without_its_inside(
        self, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def broken(*_: object) -> None:
            raise ZeroDivisionError("a secret")

        monkeypatch.setattr(Service, "list_deployments", broken)
        with structlog.testing.capture_logs() as logs:
            async with asking(an_api(database)) as client:
                told = detail(await client.get("/v1/deployments"), 500)
        assert "its log has more" in told
        assert "secret" not in told
        assert [entry["event"] for entry in logs] == ["api_failed"]


class TestVersions:
    async def test_a_change_decided_on_an_older_version_is_refused(
        self, open_api: httpx.AsyncClient
    ) -> None:
        tag = (await open_api.put(DEMO, json=CHAT)).headers["etag"]
        assert (await open_api.get(DEMO)).headers["etag"] == tag
        first = await open_api.patch(DEMO, json={"replicas": 3}, headers={"if-match": tag})
        assert first.status_code == 200
        second = await open_api.patch(DEMO, json={"replicas": 4}, headers={"if-match": tag})
        assert "look again and decide anew" in detail(second, 412)
        assert (await open_api.get(DEMO)).json()["target_count"] == 3
        assert (await open_api.patch(DEMO, json={"replicas": 4})).status_code == 200

    async def test_every_change_keeps_to_the_version_it_is_given(
        self, open_api: httpx.AsyncClient
    ) -> None:
        await open_api.put(DEMO, json=CHAT)
        stale = {"if-match": '"999"'}
        revision = {"revision": CHAT["revision"]}
        for method, below, body in (
            ("PUT", "", CHAT),
            ("PATCH", "", {"replicas": 1}),
            ("DELETE", "", None),
            ("POST", "/revisions", revision),
            ("POST", "/activate", {"number": 1}),
            ("POST", "/rollout/abort", None),
            ("POST", "/rollout/pause", None),
            ("POST", "/rollout/resume", None),
            ("POST", "/rollout/promote", None),
            ("POST", "/rollout/retry", None),
            ("POST", "/rollout/rollback", None),
            ("POST", "/routes", {"host": "10.0.0.7", "port": 80}),
        ):
            refused = await open_api.request(method, DEMO + below, json=body, headers=stale)
            assert "version 999" in detail(refused, 412), (method, below)
        new = await open_api.put("/v1/deployments/new", json=CHAT, headers=stale)
        assert "there is none" in detail(new, 412)

    async def test_repeated_apply_changes_nothing(self, open_api: httpx.AsyncClient) -> None:
        first = await open_api.put(DEMO, json=CHAT)
        again = await open_api.put(DEMO, json=CHAT)
        assert first.json()["changes"] == ["created", "added revision 1", "activated revision 1"]
        assert again.json()["changes"] == []
        assert first.headers["etag"] == again.headers["etag"]


class TestPages:
    async def test_a_listing_comes_in_pages_that_make_the_whole(
        self, open_api: httpx.AsyncClient, service: Service
    ) -> None:
        await apply_demo(service, revision=EXTERNAL)
        for port in range(1, 6):
            await service.register_route("demo", host="10.0.0.7", port=port)
        ports: list[int] = []
        after: dict[str, str] = {}
        for expected in (2, 2, 1):
            page = (await open_api.get("/v1/routes", params={"limit": 2, **after})).json()
            assert len(page["items"]) == expected
            ports += [item["port"] for item in page["items"]]
            after = {"after": page["next"]}
        assert sorted(ports) == [1, 2, 3, 4, 5]
        assert after == {"after": None}

    async def test_the_client_puts_pages_together(
        self, open_api: httpx.AsyncClient, service: Service, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("controller.api_calls.PAGE", 2)
        await apply_demo(service, revision=EXTERNAL)
        for port in range(1, 6):
            await service.register_route("demo", host="10.0.0.7", port=port)
        assert await ApiClient(open_api).list_routes("demo") == await service.list_routes("demo")


class TestGate:
    @pytest.mark.parametrize(
        "host", ["evil.example", "evil.example:9156", "10.0.0.1", "127.0.0.1.evil"]
    )
    async def test_a_name_of_elsewhere_is_not_answered_on_loopback(
        self, open_api: httpx.AsyncClient, host: str
    ) -> None:
        """DNS rebinding: a page of elsewhere whose name leads here gets nothing."""
        refused = await open_api.get("/v1/routes", headers={"host": host})
        assert "is not served here" in detail(refused, 421)

    @pytest.mark.parametrize("host", ["localhost:1", "127.0.0.1:9156", "[::1]:9156", "LOCALHOST"])
    async def test_names_of_this_machine_are_answered(
        self, open_api: httpx.AsyncClient, host: str
    ) -> None:
        assert (await open_api.get("/v1/routes", headers={"host": host})).status_code == 200

    async def test_a_page_of_another_site_changes_nothing(
        self, open_api: httpx.AsyncClient, service: Service
    ) -> None:
        await apply_demo(service)
        for origin in ("http://evil.example", "null", "http://localhost:1"):
            refused = await open_api.delete(DEMO, headers={"origin": origin})
            assert "may not change anything" in detail(refused, 403)
        assert "access-control-allow-origin" not in refused.headers
        own = await open_api.delete(DEMO, headers={"origin": "http://localhost"})
        assert own.status_code == 200

    @pytest.mark.parametrize("path", ["/", "/v1/routes", "/livez", "/nope", "/openapi.json"])
    async def test_every_answer_has_the_headers_that_keep_a_browser_from_harm(
        self, open_api: httpx.AsyncClient, path: str
    ) -> None:
        headers = (await open_api.get(path)).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["x-frame-options"] == "DENY"
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert "unsafe" not in headers["content-security-policy"]

    async def test_which_methods_there_are_is_no_secret(self, guarded: Api) -> None:
        async with asking(guarded) as client:
            told = await client.options(DEMO)
        assert (told.status_code, told.content) == (204, b"")
        assert "GET" in told.headers["allow"]

    async def test_without_the_api_only_the_pages_are_there(self) -> None:
        access = Access(tokens=None, loopback=False, anonymous=OPERATOR)
        transport = httpx.ASGITransport(only_pages(pages(), access))  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://any.where") as client:
            assert (await client.get("/metrics")).status_code == 200
            assert (await client.get("/livez")).text == "ok\n"
            assert (await client.head("/readyz")).status_code == 200
            for path in ("/", "/v1/routes", "/openapi.json"):
                assert (await client.get(path)).status_code == 404


class TestDiscovery:
    async def test_prometheus_is_told_of_ready_routes_alone(
        self,
        open_api: httpx.AsyncClient,
        service: Service,
        database: Database,
        epoch: int,  # noqa: F811 - the fixture
    ) -> None:
        await apply_demo(service, revision=EXTERNAL)
        await service.register_route("demo", host="10.0.0.7", port=8000)
        ready = await service.register_route("demo", host="10.0.0.8", port=8000)
        await Repository(database).apply([to_running(ready)], epoch=epoch)
        (group,) = (await open_api.get("/v1/sd/prometheus")).json()
        assert group["targets"] == ["10.0.0.8:8000"]
        assert group["labels"]["deployment"] == "demo"

    async def test_envoy_is_told_the_same_at_both_paths(self, open_api: httpx.AsyncClient) -> None:
        asked = await open_api.post("/v3/discovery:endpoints", json={"node": {"id": "e"}})
        assert asked.status_code == 200
        assert asked.json() == (await open_api.get("/v1/proxy/envoy?cluster=nope")).json()
        assert asked.json()["resources"] == []


class TestDescription:
    async def test_it_tells_every_path_and_how_it_fails(self, database: Database) -> None:
        paths = an_api(database).described.document["paths"]
        told = {(method.upper(), path) for path, item in paths.items() for method in item}
        assert len(told) >= 20
        for path, item in paths.items():
            for method, operation in item.items():
                failing = {status for status in operation["responses"] if status >= "400"}
                assert failing >= {"401", "403", "422", "503"}, (method, path)
                changing = method != "get" and path != "/v3/discovery:endpoints"  # asks only
                assert ("412" in failing) is changing, (method, path)

    async def test_patterns_are_those_of_other_languages(self, database: Database) -> None:
        text = json.dumps(an_api(database).described.document)
        assert r"\\A" not in text
        assert r"\\Z" not in text

    def test_it_is_made_of_views_that_leave_out_nothing_of_the_nouns(self) -> None:
        """R-09: a field that is renamed has to be renamed here, in sight."""
        for noun, view in (
            (model.Deployment, views.DeploymentView),
            (model.Revision, views.RevisionView),
            (model.Rollout, views.RolloutView),
            (model.Route, views.RouteView),
            (HistoryEntry, views.HistoryView),
        ):
            assert {field.name for field in fields(noun)} <= set(view.__struct_fields__)


def test_only_so_many_follow_at_once() -> None:
    assert FOLLOWERS_MAX < 64, "a port that accepts 64 connections keeps some for everybody else"
