"""TLS contexts from files that targets name: what they trust, and what cannot be used."""

import os
import ssl
from ipaddress import ip_address
from pathlib import Path

import pytest

from probe.errors import MalformedEntry, UnsupportedCheck, WireError
from probe.http.place import Name, Place, UnixPath
from probe.http.tls import CONTEXTS_MAX, TlsContexts
from probe.specs import TlsOptions
from tests.fakes.authority import NAME, Authority, encrypted_key

HOST = Name(NAME)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def contexts(authority: Authority) -> TlsContexts:
    return TlsContexts(authority.directory)


def test_verification_is_on_by_default(contexts: TlsContexts) -> None:
    context = contexts.plan(TlsOptions(), HOST).context
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.keylog_filename is None


def test_verification_is_left_out_only_where_asked(contexts: TlsContexts) -> None:
    context = contexts.plan(TlsOptions(verify=False), HOST).context
    assert context.verify_mode is ssl.CERT_NONE
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2


def test_private_authority_takes_the_place_of_the_systems(contexts: TlsContexts) -> None:
    context = contexts.plan(TlsOptions(ca_file="ca.pem"), HOST).context
    assert context.cert_store_stats()["x509_ca"] == 1


def test_environment_does_not_make_session_keys_leak(
    contexts: TlsContexts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    assert contexts.plan(TlsOptions(ca_file="ca.pem"), HOST).context.keylog_filename is None


@pytest.mark.parametrize(
    ("host", "server_name", "expected"),
    [
        (HOST, None, NAME),
        (ip_address("127.128.0.1"), None, "127.128.0.1"),
        (ip_address("127.128.0.1"), "Other.Example", "other.example"),
        (UnixPath("/run/a.sock"), "other.example", "other.example"),
    ],
)
def test_name_is_the_targets_unless_it_says_otherwise(
    contexts: TlsContexts, host: Place, server_name: str | None, expected: str
) -> None:
    assert contexts.plan(TlsOptions(server_name=server_name), host).server_name == expected


def test_socket_needs_a_name_unless_nothing_is_checked(contexts: TlsContexts) -> None:
    socket = UnixPath("/run/a.sock")
    with pytest.raises(UnsupportedCheck, match=r"tls\.server_name"):
        contexts.plan(TlsOptions(), socket)
    assert contexts.plan(TlsOptions(verify=False), socket).server_name is None


def test_equal_options_share_a_context(contexts: TlsContexts) -> None:
    options = TlsOptions(ca_file="ca.pem")
    first = contexts.plan(options, HOST).context
    assert contexts.plan(options, Name("another.example")).context is first
    assert contexts.plan(TlsOptions(), HOST).context is not first
    assert contexts.plan(options, HOST, http2=True).context is not first


def test_file_that_changed_makes_a_new_context(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    contexts = TlsContexts(tmp_path)
    options = TlsOptions(
        ca_file="ca.pem", client_certificate_file="client.crt", client_key_file="client.key"
    )
    before = contexts.plan(options, HOST).context
    later_ns = (tmp_path / "ca.pem").stat().st_mtime_ns + 1_000_000
    os.utime(tmp_path / "ca.pem", ns=(later_ns, later_ns))
    after = contexts.plan(options, HOST).context
    assert after is not before
    del authority


def test_contexts_are_bounded(contexts: TlsContexts, authority: Authority) -> None:
    text = (authority.directory / "ca.pem").read_text()
    for number in range(CONTEXTS_MAX + 5):
        (authority.directory / f"ca-{number}.pem").write_text(text)
        contexts.plan(TlsOptions(ca_file=f"ca-{number}.pem"), HOST)
    assert f"{CONTEXTS_MAX} contexts" in repr(contexts)


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"ca_file": "absent.pem"}, UnsupportedCheck, "tls.ca_file: 'absent.pem' cannot be read"),
        ({"ca_file": "../ca.pem"}, UnsupportedCheck, "tls.ca_file: '../ca.pem' is not a plain"),
        ({"ca_file": "/etc/passwd"}, UnsupportedCheck, "name a file below tls_directory"),
        ({"ca_file": "out.pem"}, UnsupportedCheck, "leads out of its directory"),
        ({"ca_file": "garbage.pem"}, UnsupportedCheck, "tls.ca_file: 'garbage.pem' does not load"),
        ({"ca_file": "folder"}, UnsupportedCheck, "is not a regular file"),
        ({"ca_file": "long.pem"}, UnsupportedCheck, "is longer than 1 MiB"),
        (
            {"client_certificate_file": "client.crt"},
            UnsupportedCheck,
            "tls.client_certificate_file: 'client.crt' does not load",
        ),
        (
            {"client_certificate_file": "client.crt", "client_key_file": "locked.key"},
            UnsupportedCheck,
            "a key without passphrase",
        ),
        (
            {"client_certificate_file": "client.crt", "client_key_file": "strange.key"},
            UnsupportedCheck,
            "does not load (KEY_VALUES_MISMATCH)",
        ),
        ({"client_key_file": "client.key"}, MalformedEntry, "is a key without a certificate"),
        ({"ca_file": "ca.pem", "verify": False}, MalformedEntry, "tls.verify is false"),
        ({"server_name": "127.1"}, UnsupportedCheck, "tls.server_name '127.1' is not"),
        ({"server_name": "a\r\nb"}, UnsupportedCheck, "is not a host name"),
        ({"server_name": "unix:/run/a"}, MalformedEntry, "tls.server_name"),
    ],
)
def test_what_cannot_be_used_is_refused_by_field_and_remedy(
    tmp_path: Path, options: dict[str, str], error: type[WireError], says: str
) -> None:
    directory = tmp_path / "tls"
    directory.mkdir()
    Authority(directory)
    (tmp_path / "ca.pem").write_bytes((directory / "ca.pem").read_bytes())
    (directory / "out.pem").symlink_to(tmp_path / "ca.pem")
    (directory / "folder").mkdir()
    (directory / "garbage.pem").write_text("not a certificate")
    (directory / "long.pem").write_bytes(b"\n" * (1024 * 1024 + 1))
    encrypted_key(directory / "client.key", directory / "locked.key")
    other = tmp_path / "other"
    other.mkdir()
    Authority(other)
    (directory / "strange.key").write_bytes((other / "client.key").read_bytes())
    with pytest.raises(error) as refused:
        TlsContexts(directory).plan(TlsOptions(**options), HOST)  # type: ignore[arg-type]  # the table's words
    assert says in str(refused.value)


def test_prober_without_a_directory_has_only_the_systems_authorities() -> None:
    contexts = TlsContexts(None)
    assert contexts.plan(TlsOptions(), HOST).context.verify_mode is ssl.CERT_REQUIRED
    with pytest.raises(UnsupportedCheck, match=r"tls\.ca_file: this prober has no tls_directory"):
        contexts.plan(TlsOptions(ca_file="ca.pem"), HOST)
