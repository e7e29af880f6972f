"""The controller's settings: where each value came from, and what cannot work."""

from pathlib import Path

import pytest

from controller.reconcile.handler import Schedule
from controller.reconcile.schedules import WAKES, schedule_of
from controller.settings import PERIODS, Period, Settings, load
from probe.errors import SettingsError

DATABASE = {"database_url": "fleet.db"}
PROCESS: dict[str, object] = {"provisioner": "process", "process_directory": "/run/x"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "f.toml"
    path.write_text(
        "[probe]\nflush_s = 0.1\n[controller]\ndatabase_url = 'file.db'\nlease_s = 11\n",
        encoding="utf-8",
    )
    return path


class TestLayers:
    def test_each_layer_wins_over_the_one_below(self, file: Path) -> None:
        """R-56"""
        of_environment = {"FLEETPULSE_CONTROLLER__LEASE_S": "12"}
        given = [
            load(None, {}, flags=DATABASE),
            load(file, {}, flags={}),
            load(file, of_environment, flags={}),
            load(file, of_environment, flags={"lease_s": 13.0}),
        ]
        assert [effective.settings.lease_s for effective in given] == [15.0, 11.0, 12.0, 13.0]
        assert [effective.sources["lease_s"] for effective in given] == [
            "default",
            f"file {file}",
            "environment FLEETPULSE_CONTROLLER__LEASE_S",
            "flag",
        ]

    def test_shared_names_are_read_and_own_names_go_over_them(self) -> None:
        shared = {"FLEETPULSE_DATABASE_URL": "a.db", "FLEETPULSE_REDIS_URL": "redis://a"}
        settings = load(None, shared, flags={}).settings
        assert (settings.database_url, settings.redis_url) == ("a.db", "redis://a")
        both = shared | {"FLEETPULSE_CONTROLLER__DATABASE_URL": "b.db"}
        assert load(None, both, flags={}).settings.database_url == "b.db"

    def test_the_output_is_a_file_that_gives_the_same_settings(self, tmp_path: Path) -> None:
        effective = load(None, {}, flags=DATABASE | {"key_prefix": 'a"b', "lease_s": 3.5})
        path = tmp_path / "again.toml"
        path.write_text("\n".join(effective.lines()), encoding="utf-8")
        assert load(path, {}, flags={}).settings == effective.settings

    def test_no_secret_is_shown(self) -> None:
        redis = {"redis_url": "redis://ada:s3cret@bus:6379/0"}
        assert "s3cret" not in "\n".join(load(None, {}, flags=DATABASE | redis).lines())


class TestRefusals:
    @pytest.mark.parametrize(
        ("flags", "said"),
        [
            ({"database_url": ""}, "no database is named: pass --database"),
            ({"metrics": "9156"}, "controller.metrics = '9156' is not HOST:PORT"),
            ({"provisioner": "simulated"}, "needs controller.fleet_socket"),
            ({"provisioner": "process"}, "needs controller.process_directory, a directory"),
            (PROCESS | {"process_ports": "9-8"}, "process_ports = '9-8' is no range of ports"),
            (PROCESS | {"process_ports": "0-8"}, "from 1 to 65535, such as 20000-29999"),
            (PROCESS | {"process_ports": "8-65536"}, "process_ports = '8-65536'"),
            (PROCESS | {"process_ports": "8000"}, "controller.process_ports = '8000'"),
            ({"provisioner": "kubernetes"}, "controller.provisioner = 'kubernetes'"),
            ({"lease_s": 0.5}, "controller.lease_s = 0.5"),
            ({"max_period_s": 0.0}, "controller.max_period_s"),
            ({"max_mark_pause_s": 0.0}, "controller.max_mark_pause_s"),
            ({"termination_grace_s": -1.0}, "controller.termination_grace_s"),
            ({"instance": "two words"}, "controller.instance = 'two words'"),
        ],
    )
    def test_a_value_that_cannot_work_is_named(self, flags: dict[str, object], said: str) -> None:
        with pytest.raises(SettingsError) as caught:
            load(None, {}, flags=DATABASE | flags)
        assert said in str(caught.value)

    @pytest.mark.parametrize(
        ("environ", "said"),
        [
            (
                {"FLEETPULSE_CONTROLLER__LEASES": "1"},
                "did you mean 'FLEETPULSE_CONTROLLER__LEASE_S'?",
            ),
            ({"FLEETPULSE_CONTROLLER__LEASE_S": "soon"}, "controller.lease_s = 'soon'"),
        ],
    )
    def test_a_name_or_value_of_the_environment_is_named(
        self, environ: dict[str, str], said: str
    ) -> None:
        with pytest.raises(SettingsError) as caught:
            load(None, environ, flags=DATABASE)
        assert said in str(caught.value)


class TestPeriods:
    def test_a_bound_shortens_and_never_lengthens(self) -> None:
        bounded = Settings(max_period_s=40.0, max_mark_pause_s=7.0, first_sync_s=10.0)
        assert bounded.period("sync_probe_targets") == Period(40.0, 5.0, 10.0)
        assert bounded.period("check_running") == Period(40.0, 7.0)
        assert bounded.period("evict") == Period(40.0, None), "marks never wake it"
        assert bounded.period("drain") == Period(30.0, 5.0)

    def test_every_handler_has_its_period_and_what_wakes_it(self) -> None:
        """R-49"""
        assert set(PERIODS) == set(WAKES)
        for handler, (consumes, produces) in WAKES.items():
            period = PERIODS[handler]
            assert schedule_of(Settings(), handler) == Schedule(
                period_s=period.long_s,
                on_mark_s=period.on_mark_s,
                first_after_s=period.first_after_s,
                consumes=frozenset(consumes),
                produces=frozenset(produces),
            )
            assert bool(consumes) == (period.on_mark_s is not None)
