"""The documents that others fetch: who can be scraped, and where an Envoy sends traffic."""

import pytest

from controller.model import Health, Route, RouteStatus, Stage, Traffic
from controller.publish.discovery import target_groups
from controller.publish.envoy import TYPE_URL, WEIGHT, discovery_response
from controller.route.table import ProxyTable, table_of
from tests.fakes.nouns import DEMO, NEW, a_deployment, a_route, deploying, fleet, route_id, warming

DEPLOYMENT = a_deployment()


def of(*routes: Route, name: str = "demo") -> ProxyTable:
    return table_of(a_deployment(name=name), routes)


class TestPrometheus:
    def test_a_ready_route_is_a_target_with_its_deployment_for_a_label(self) -> None:
        assert target_groups({DEMO: DEPLOYMENT}, [a_route(1, port=8001)]) == [
            {
                "targets": ["127.0.0.1:8001"],
                "labels": {
                    "deployment": "demo",
                    "__meta_fleetpulse_route": route_id(1),
                    "__meta_fleetpulse_revision": "1",
                    "__meta_fleetpulse_traffic": "active",
                    "__meta_fleetpulse_health": "healthy",
                },
            }
        ]

    @pytest.mark.parametrize(
        "route",
        [
            warming(),
            a_route(health=Health.UNHEALTHY),
            a_route(health=Health.DEGRADED),
            a_route(status=RouteStatus.TERMINATING, stage=Stage.DRAINING),
            a_route(host=None),
            a_route(host="unix:/run/replica.sock"),
            a_route(deployment_id="gone"),
        ],
        ids=["warming", "unhealthy", "degraded", "draining", "no host", "socket", "no deployment"],
    )
    def test_who_cannot_answer_is_none(self, route: Route) -> None:
        assert target_groups({DEMO: DEPLOYMENT}, [route]) == []

    def test_an_unchecked_route_and_one_without_traffic_can_be_scraped(self) -> None:
        """R-03"""
        routes = [a_route(1, health_check=None), a_route(2, traffic=Traffic.INACTIVE)]
        assert len(target_groups({DEMO: DEPLOYMENT}, routes)) == 2

    def test_the_order_is_the_same_each_time_and_an_ipv6_address_has_brackets(self) -> None:
        other = a_deployment(id="other", name="another")
        routes = [
            a_route(3, host="::1"),
            a_route(2, revision_id=NEW.id),
            a_route(1, deployment_id="other", revision_id="forgotten"),
        ]
        groups = target_groups({DEMO: deploying(), other.id: other}, routes)
        assert [group["targets"] for group in groups] == [
            ["127.0.0.1:8000"],
            ["127.0.0.1:8000"],
            ["[::1]:8000"],
        ]
        numbers = [group["labels"]["__meta_fleetpulse_revision"] for group in groups]
        assert numbers == ["", "2", "1"]


class TestEnvoy:
    def test_an_assignment_has_an_address_and_a_weight_for_each_route(self) -> None:
        response = discovery_response([of(a_route(1), a_route(2, traffic_ratio=0.25))])
        assert response["type_url"] == TYPE_URL
        (resource,) = response["resources"]
        address = {"socket_address": {"address": "127.0.0.1", "port_value": 8000}}
        assert resource == {
            "@type": TYPE_URL,
            "cluster_name": "demo",
            "endpoints": [
                {
                    "lb_endpoints": [
                        {"endpoint": {"address": address}, "load_balancing_weight": WEIGHT},
                        {"endpoint": {"address": address}, "load_balancing_weight": 25},
                    ]
                }
            ],
        }

    def test_health_is_not_asked(self) -> None:
        """R-07"""
        (resource,) = discovery_response([of(*fleet(3, bad=2))])["resources"]
        assert len(resource["endpoints"][0]["lb_endpoints"]) == 3

    def test_the_last_to_leave_leaves_an_empty_assignment(self) -> None:
        """R-47"""
        (resource,) = discovery_response([of()])["resources"]
        assert (resource["cluster_name"], resource["endpoints"]) == ("demo", [])

    def test_a_route_without_a_share_and_one_behind_a_name_are_left_out(self) -> None:
        routes = (
            a_route(1, traffic_ratio=0.0),
            a_route(2, host="replica.example"),
            a_route(3, host="::1"),
            a_route(4, host="unix:/run/replica.sock"),
            a_route(5, traffic_ratio=0.001),
        )
        (resource,) = discovery_response([of(*routes)])["resources"]
        endpoints = resource["endpoints"][0]["lb_endpoints"]
        assert [(e["endpoint"]["address"], e["load_balancing_weight"]) for e in endpoints] == [
            ({"socket_address": {"address": "::1", "port_value": 8000}}, WEIGHT),
            ({"pipe": {"path": "/run/replica.sock"}}, WEIGHT),
            ({"socket_address": {"address": "127.0.0.1", "port_value": 8000}}, 1),
        ]

    def test_the_version_is_that_of_the_content(self) -> None:
        one, two = of(a_route(1), name="one"), of(a_route(2), name="two")
        first = discovery_response([one, two])
        assert discovery_response([two, one]) == first
        assert discovery_response([one, of(name="two")])["version_info"] != first["version_info"]

    def test_who_names_clusters_gets_those(self) -> None:
        tables = [of(a_route(1), name="one"), of(a_route(2), name="two")]
        response = discovery_response(tables, wanted=["two", "three"])
        assert [resource["cluster_name"] for resource in response["resources"]] == ["two"]
