"""Each layer gets a value of its own, so that the winner is provable (R-56)."""

from pathlib import Path

import pytest

from probe.errors import SettingsError
from probe.layers import Address, mask_url, parse_address
from probe.settings import PRIVATE_RANGES, Settings, load


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(tmp_path / "p.toml", "[probe]\nflush_s = 0.11\nallow = ['10.1.0.0/16']\n")


class TestLayers:
    def test_defaults_stand_alone(self) -> None:
        effective = load(None, {}, flags={})
        assert effective.settings == Settings()
        assert set(effective.sources.values()) == {"default"}
        assert effective.settings.allow == PRIVATE_RANGES

    def test_file_goes_over_default(self, file: Path) -> None:
        effective = load(file, {}, flags={})
        assert effective.settings.flush_s == 0.11
        assert effective.sources["flush_s"] == f"file {file}"
        assert effective.sources["flush_count"] == "default"

    def test_environment_goes_over_file(self, file: Path) -> None:
        effective = load(file, {"FLEETPULSE_PROBE__FLUSH_S": "0.12"}, flags={})
        assert effective.settings.flush_s == 0.12
        assert effective.sources["flush_s"] == "environment FLEETPULSE_PROBE__FLUSH_S"

    def test_flag_goes_over_environment(self, file: Path) -> None:
        effective = load(file, {"FLEETPULSE_PROBE__FLUSH_S": "0.12"}, flags={"flush_s": 0.13})
        assert effective.settings.flush_s == 0.13
        assert effective.sources["flush_s"] == "flag"

    def test_shared_names_are_read_and_own_names_go_over_them(self) -> None:
        shared = {"FLEETPULSE_REDIS_URL": "redis://a", "FLEETPULSE_ALLOW": "10.0.0.0/8, ::1/128"}
        assert load(None, shared, flags={}).settings.redis_url == "redis://a"
        assert load(None, shared, flags={}).settings.allow == ("10.0.0.0/8", "::1/128")
        both = shared | {"FLEETPULSE_PROBE__REDIS_URL": "redis://b"}
        assert load(None, both, flags={}).settings.redis_url == "redis://b"

    def test_a_list_is_replaced_not_merged(self, file: Path) -> None:
        effective = load(file, {"FLEETPULSE_PROBE__ALLOW": "10.2.0.0/16"}, flags={})
        assert effective.settings.allow == ("10.2.0.0/16",)

    def test_a_file_may_also_configure_the_controller(self, tmp_path: Path) -> None:
        path = write(tmp_path / "f.toml", "[controller]\nanything = 1\n[probe]\nflush_count = 7\n")
        assert load(path, {}, flags={}).settings.flush_count == 7


class TestRefusals:
    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("[probe]\nflsh_s = 1", "unknown key 'probe.flsh_s', did you mean 'probe.flush_s'?"),
            ("[prob]\nflush_s = 1", "unknown key 'prob', did you mean 'probe'?"),
            ("flush_s = 1", "unknown key 'flush_s'"),
            ("probe = 3", "'probe' is not a table"),
            ("[probe", "is not TOML"),
            ("[probe]\nflush_s = 'x'", "probe.flush_s = 'x' (file"),
            ("[probe]\nflush_count = true", "probe.flush_count = True (file"),
            ("[probe]\nallow = 'all'", "probe.allow = 'all' (file"),
        ],
    )
    def test_a_bad_file_is_named_with_its_key(self, tmp_path: Path, text: str, said: str) -> None:
        path = write(tmp_path / "f.toml", text)
        with pytest.raises(SettingsError) as caught:
            load(path, {}, flags={})
        assert said in str(caught.value)
        assert str(path) in str(caught.value)

    def test_a_missing_file_is_said(self, tmp_path: Path) -> None:
        with pytest.raises(SettingsError, match="cannot be read"):
            load(tmp_path / "absent.toml", {}, flags={})

    @pytest.mark.parametrize(
        ("environ", "said"),
        [
            ({"FLEETPULSE_PROBE__FLUSHS": "1"}, "did you mean 'FLEETPULSE_PROBE__FLUSH_S'?"),
            ({"FLEETPULSE_PROBE__FLUSH_S": "soon"}, "probe.flush_s = 'soon' (environment"),
            ({"FLEETPULSE_PROBE__FLUSH_S": "nan"}, "probe.flush_s"),
            ({"FLEETPULSE_PROBE__FLUSH_COUNT": "0"}, ">= 1"),
            ({"FLEETPULSE_REDIS_URL": "http://bus"}, "the scheme 'http' is not one of"),
            ({"FLEETPULSE_ALLOW": "10.0.0.1/8"}, "has host bits set"),
            ({"FLEETPULSE_ALLOW": " , "}, "allow is empty"),
            ({"FLEETPULSE_PROBE__METRICS": "9155"}, "is not HOST:PORT"),
            ({"FLEETPULSE_PROBE__METRICS": "::1:9155"}, "is not HOST:PORT"),
            ({"FLEETPULSE_PROBE__METRICS": "h:65536"}, "not in 0-65535"),
            ({"FLEETPULSE_PROBE__INSTANCE": "a b"}, "probe.instance = 'a b'"),
        ],
    )
    def test_a_bad_value_is_named_with_its_source(self, environ: dict[str, str], said: str) -> None:
        with pytest.raises(SettingsError) as caught:
            load(None, environ, flags={})
        assert said in str(caught.value)

    @pytest.mark.parametrize(
        ("flags", "said"),
        [
            ({"flush_s": 80.0, "late_result_s": 100.0}, "is 125 s, but a status lives 120 s"),
            ({"flush_s": 4.0}, "more than probe.late_result_s 5 s"),
            ({"heartbeat_s": 6.0}, "so at most 5"),
            ({"poll_s": 31.0}, "longer than probe.full_refresh_s"),
            ({"damping_reuse": 4.0}, "damping_reuse 4 is not below probe.damping_suppress 4"),
            ({"max_connections": 10, "max_in_flight": 11}, "max_in_flight 11 is more than"),
        ],
    )
    def test_impossible_sums_are_refused(self, flags: dict[str, object], said: str) -> None:
        with pytest.raises(SettingsError) as caught:
            load(None, {}, flags=flags)
        assert said in str(caught.value)

    @pytest.mark.parametrize(
        ("flags", "said"),
        [
            ({"interval_stretch_max": 3.6}, "interval_stretch_max = 3.6"),
            ({"interval_stretch_max": 3.45, "flush_s": 2.9}, "at most 3.4"),
            ({"interval_stretch_max": 0.5}, "interval_stretch_max"),
            ({"reference_targets": ("lighthouse:443",)}, "write an IP address"),
            ({"reference_targets": ("10.0.0.1",)}, "reference_targets"),
        ],
    )
    def test_what_the_prober_may_do_to_itself_has_bounds(
        self, flags: dict[str, object], said: str
    ) -> None:
        with pytest.raises(SettingsError, match=said):
            load(None, {}, flags=flags)

    def test_a_landmark_may_be_ipv6(self) -> None:
        found = load(
            None, {"FLEETPULSE_PROBE__REFERENCE_TARGETS": "10.0.0.1:443,[fd00::1]:53"}, flags={}
        )
        assert found.settings.reference_targets == ("10.0.0.1:443", "[fd00::1]:53")

    def test_a_secret_is_not_in_the_refusal(self) -> None:
        with pytest.raises(SettingsError) as caught:
            load(None, {"FLEETPULSE_REDIS_URL": "http://u:s3cret@bus/?password=s3cret"}, flags={})
        assert "s3cret" not in str(caught.value)


class TestCheckConfig:
    def test_the_output_is_a_file_that_gives_the_same_settings(self, tmp_path: Path) -> None:
        effective = load(None, {}, flags={"key_prefix": 'a"b', "allow": ["10.3.0.0/16"]})
        path = write(tmp_path / "again.toml", "\n".join(effective.lines()))
        assert load(path, {}, flags={}).settings == effective.settings

    def test_each_value_has_its_source_and_secrets_are_masked(self) -> None:
        effective = load(None, {"FLEETPULSE_REDIS_URL": "rediss://u:s3cret@bus:6380/1"}, flags={})
        text = "\n".join(effective.lines())
        assert 'redis_url = "rediss://u:***@bus:6380/1"' in text
        assert "# environment FLEETPULSE_REDIS_URL" in text
        assert "flush_s = 0.2  # default" in text


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("redis://:pa:ss@w/rd@h:1/0", "redis://:***@h:1/0"),
        ("unix:///run/v.sock?db=1&password=x", "unix:///run/v.sock?db=1&password=***"),
        ("redis://h:6379/0", "redis://h:6379/0"),
    ],
)
def test_passwords_are_masked_in_either_place(url: str, masked: str) -> None:
    assert mask_url(url) == masked


def test_an_ipv6_address_stands_in_brackets() -> None:
    assert parse_address("probe.metrics", "[::1]:0") == Address("::1", 0)


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("allow", ["unix:/run/../etc"], "probe.allow: 'unix:/run/../etc' is not unix: and"),
        ("allow", ["10.0.0.1/8"], "probe.allow: 10.0.0.1/8 has host bits set"),
        ("allow_ports", ["0-80"], "probe.allow_ports: '0-80' is neither a port nor"),
        ("nameservers", ["10.0.0.53"], "probe.nameservers = '10.0.0.53' is not HOST:PORT"),
        ("nameservers", ["dns.example:53"], "probe.nameservers: 'dns.example' does not appear"),
        ("proxy", "socks5://u:s3cret@10.0.0.1:1", "probe.proxy = 'socks5://u:***@10.0.0.1:1'"),
        ("proxy_for", [".example"], "probe.proxy_for is set without probe.proxy"),
        ("proxy_for", ["10.0.0.0/33"], "probe.proxy_for: '10.0.0.0/33' is neither a network"),
    ],
)
def test_what_may_be_reached_is_refused_where_it_means_nothing(
    key: str, value: object, says: str
) -> None:
    with pytest.raises(SettingsError) as refused:
        load(None, {}, flags={key: value})
    assert says in str(refused.value)
    assert "s3cret" not in str(refused.value)


def test_what_may_be_reached_may_be_set_from_the_environment() -> None:
    environ = {
        "FLEETPULSE_PROBE__ALLOW": "10.0.0.0/8,unix:/run/replicas",
        "FLEETPULSE_PROBE__ALLOW_PORTS": "80,8000-8999",
        "FLEETPULSE_PROBE__ALLOW_DNS": "true",
        "FLEETPULSE_PROBE__PROXY": "http://u:s3cret@10.0.0.1:3128",
        "FLEETPULSE_PROBE__PROXY_FOR": "10.1.0.0/16,.example",
    }
    effective = load(None, environ, flags={})
    assert effective.settings.allow_ports == ("80", "8000-8999")
    assert effective.settings.allow_dns is True
    assert effective.settings.proxy_for == ("10.1.0.0/16", ".example")
    assert "s3cret" not in "\n".join(effective.lines())


def test_a_number_out_of_bounds_is_answered_with_the_word_that_may_stand_for_it() -> None:
    with pytest.raises(SettingsError, match="Expected `int` >= 1, or 'auto'"):
        load(None, {"FLEETPULSE_PROBE__WORKERS": "0"}, flags={})
