"""Certificates of every kind for loopback servers, good and bad, written below one directory."""

import ssl
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

NAME: Final = "replica.example"
ADDRESS: Final = "127.128.0.1"


class Authority:
    """A private authority whose files lie in `directory`; makes servers' contexts."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._ca = trustme.CA()
        self._ca.cert_pem.write_to_path(str(directory / "ca.pem"))
        trustme.CA().cert_pem.write_to_path(str(directory / "other-ca.pem"))
        client = self._ca.issue_cert("prober@fleet.example")
        client.private_key_and_cert_chain_pem.write_to_path(str(directory / "client.pem"))
        client.private_key_pem.write_to_path(str(directory / "client.key"))
        client.cert_chain_pems[0].write_to_path(str(directory / "client.crt"))

    def server(self, kind: str = "good") -> ssl.SSLContext:
        """Return the context of a server: `good`, or wrong in the way that `kind` names."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        if kind == "self_signed":
            _self_signed(self.directory, context)
            return context
        now = datetime.now(UTC)
        dates = {
            "expired": (now - timedelta(days=2), now - timedelta(days=1)),
            "not_yet": (now + timedelta(days=1), now + timedelta(days=2)),
        }.get(kind, (now - timedelta(days=1), now + timedelta(days=1)))
        names = ("wrong.example", "127.128.9.9") if kind == "wrong_name" else (NAME, ADDRESS)
        signer = trustme.CA() if kind == "unknown_authority" else self._ca
        signer.issue_cert(*names, not_before=dates[0], not_after=dates[1]).configure_cert(context)
        if kind == "too_old":
            _make_old(context)
        if kind == "wants_client":
            context.verify_mode = ssl.CERT_REQUIRED
            context.maximum_version = ssl.TLSVersion.TLSv1_2  # refuses inside the handshake
            self._ca.configure_trust(context)
        if kind == "wants_client_13":
            context.verify_mode = ssl.CERT_REQUIRED
            self._ca.configure_trust(context)
        return context


def _make_old(context: ssl.SSLContext) -> None:
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1


def _self_signed(directory: Path, context: ssl.SSLContext) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, NAME)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = directory / "self-signed.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    context.load_cert_chain(path)


def encrypted_key(source: Path, target: Path) -> None:
    """Write the key in `source` to `target`, under a passphrase."""
    key = serialization.load_pem_private_key(source.read_bytes(), None)
    target.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"phrase"),
        )
    )
