"""What a proxy should know of a deployment, why it changed, and when it is not believed."""

import json

import pytest

from controller.db.draining import CATEGORY as DRAIN_ROUTE
from controller.model import EXTERNAL_SESSION, Health, Route, RouteStatus, Stage, Traffic
from controller.reconcile.deployments import CheckReplicas, Deploying, Destroying
from controller.reconcile.health import ClassifyHealth
from controller.reconcile.provision import CheckRunning
from controller.rollout.endings import BACK, FORWARD
from controller.route.evict import CATEGORY, HEALTH_POLICY
from controller.route.orphans import ORPHAN
from controller.route.shed import STOPPED
from controller.route.table import (
    Cause,
    ProxyTable,
    cause_among,
    cause_of,
    connection_info,
    decode,
    departed,
    emptied,
    encode,
    published,
    shrinks,
    table_of,
    tables,
)
from tests.fakes.nouns import (
    CHECK,
    DEMO,
    NEW,
    a_deployment,
    a_route,
    deploying,
    fleet,
    route_id,
    warming,
)

DEPLOYMENT = a_deployment()


def of(*routes: Route) -> ProxyTable:
    return table_of(DEPLOYMENT, routes)


@pytest.mark.parametrize("health", Health)
def test_health_is_not_asked(health: Health) -> None:
    """R-07"""
    route = a_route(health=health)
    assert published(route)
    assert of(route).route_ids == {route.id}


def test_an_unchecked_route_that_serves_survives_every_full_replace() -> None:
    """R-07"""
    unchecked = a_route(2, health_check=None, health=Health.NOT_CHECKED)
    first = of(a_route(1), unchecked)
    assert of(a_route(1, health=Health.UNHEALTHY), unchecked) == first
    assert of(a_route(1, traffic=Traffic.INACTIVE), unchecked).route_ids == {unchecked.id}


@pytest.mark.parametrize(
    "route",
    [
        a_route(traffic=Traffic.INACTIVE),
        warming(),
        warming(traffic=Traffic.ACTIVE),
        a_route(status=RouteStatus.TERMINATING, stage=Stage.DRAINING),
        a_route(status=RouteStatus.TERMINATED),
        a_route(host=None),
        a_route(port=None),
    ],
    ids=["inactive", "warming", "not yet running", "draining", "ended", "no host", "no port"],
)
def test_who_does_not_serve_is_not_published(route: Route) -> None:
    """R-07"""
    assert not published(route)
    assert of(route).routes == ()


def test_the_same_routes_are_the_same_table_whatever_their_order() -> None:
    """I10"""
    routes = fleet(5)
    assert of(*routes) == of(*reversed(routes))
    assert encode(of(*routes)) == encode(of(*reversed(routes)))


def test_every_deployment_has_a_table_and_only_its_own_routes() -> None:
    """R-47: the one without a route has an empty one."""
    other = a_deployment(id="other", name="other")
    found = tables({DEMO: DEPLOYMENT, other.id: other}, [a_route(1), a_route(2, deployment_id="x")])
    assert {key: [*table.route_ids] for key, table in found.items()} == {
        DEMO: [route_id(1)],
        other.id: [],
    }


def test_the_health_check_is_that_of_the_current_revision() -> None:
    """R-56: what is on its way is not what serves."""
    assert of().health_check == CHECK
    first = deploying(current=None, deploying=NEW)
    assert table_of(first, ()).health_check == NEW.spec.health_check


def test_a_table_that_was_kept_is_read_as_it_was() -> None:
    table = of(a_route(1, traffic_ratio=0.25), a_route(2, health_check=None))
    assert decode(encode(table)) == table
    assert decode(encode(emptied(table))) == ProxyTable(app="demo", routes=(), health_check=None)


def test_connection_info_is_a_list_for_each_app_and_its_version_an_app_without_routes() -> None:
    """R-46, R-50"""
    info = connection_info(of(a_route(1), a_route(2)), epoch=3, generation=7)
    assert info.startswith('{"@3.7":[],')
    assert json.loads(info) == {
        "@3.7": [],
        "demo": [
            {
                "session_id": f"session-{number}",
                "route_id": route_id(number),
                "kernel_host": "127.0.0.1",
                "kernel_port": 8000,
            }
            for number in (1, 2)
        ],
    }


@pytest.mark.parametrize("session_id", [None, EXTERNAL_SESSION])
def test_a_session_without_a_name_of_its_own_goes_by_its_route(session_id: str | None) -> None:
    """R-45: two of them never share a ratio."""
    (entry,) = of(a_route(5, session_id=session_id)).routes
    assert entry.session_id == route_id(5)


class TestShrinking:
    @pytest.mark.parametrize(
        ("size", "lost", "refused"),
        [
            (4, 0, False),
            (4, 1, False),
            (4, 2, True),
            (3, 1, False),
            (1, 1, True),
            (2, 2, True),
            (8, 2, False),
            (8, 3, True),
            (100, 25, False),
            (100, 26, True),
        ],
    )
    def test_more_than_a_quarter_and_two_at_least_or_all_is_too_much(
        self, size: int, lost: int, *, refused: bool
    ) -> None:
        """S16"""
        routes = fleet(size)
        assert shrinks(of(*routes), of(*routes[lost:])) is refused

    def test_who_left_for_a_cause_is_no_loss(self) -> None:
        """S16"""
        routes = fleet(4)
        gone = {route.id for route in routes}
        assert not shrinks(of(*routes), of(), explained=gone)
        assert shrinks(of(*routes), of(), explained=gone - {routes[0].id})
        assert not shrinks(of(*routes), of(routes[3]), explained=gone - {routes[0].id})

    def test_replacing_everything_counts_as_losing_it(self) -> None:
        """S16: as many routes as before may still all be others."""
        before, after = of(*fleet(4)), of(*fleet(4, first=11))
        assert shrinks(before, after)
        assert departed(before, after) == before.route_ids


class TestCause:
    @pytest.mark.parametrize(
        ("category", "code", "cause"),
        [
            (Deploying.name, "", Cause.ROLLOUT),
            (FORWARD, "", Cause.ROLLOUT),
            (BACK, "", Cause.ROLLOUT),
            (CheckReplicas.name, "", Cause.SCALE_IN),
            (Destroying.name, "", Cause.DESTROY),
            (CheckRunning.name, "SESSION_LOST", Cause.CONFIRMED_DEATH),
            (ClassifyHealth.name, STOPPED, Cause.CONFIRMED_DEATH),
            (DRAIN_ROUTE, "", Cause.OPERATOR),
            (CATEGORY, HEALTH_POLICY, Cause.CONFIRMED_DEATH),
            (CATEGORY, ORPHAN, Cause.ROLLOUT),
            (CATEGORY, "SOMETHING_ELSE", None),
            ("nobody", "", None),
        ],
    )
    def test_the_record_of_a_leaving_says_why(
        self, category: str, code: str, cause: Cause | None
    ) -> None:
        """S16"""
        assert cause_of(category, code) is cause

    def test_one_word_for_many_is_the_gravest(self) -> None:
        first, second, third = (route_id(number) for number in (1, 2, 3))
        assert cause_among({}) is Cause.GROWTH
        assert cause_among({first: None}) is Cause.UNEXPLAINED
        assert cause_among({first: Cause.SCALE_IN, second: None}) is Cause.SCALE_IN
        many = {first: Cause.SCALE_IN, second: Cause.DESTROY, third: Cause.ROLLOUT}
        assert cause_among(many) is Cause.DESTROY
