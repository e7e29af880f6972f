"""TLS to PostgreSQL: who answers must prove who it is, or it is told which proof failed."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from controller.db.repository import Repository
from controller.db.session import open_database
from controller.errors import DatabaseUnreachable, InvalidInput
from tests.fakes.pgbouncer import a_pgbouncer
from tests.fakes.postgres import PASSWORD


class Place:
    """A server that speaks TLS alone, and the files around it."""

    def __init__(self, directory: Path) -> None:
        self.url = ""
        self.authority, self.other = directory / "ca.pem", directory / "other.pem"
        self.certificate = directory / "server.pem", directory / "server.key"
        signer = trustme.CA()
        signer.cert_pem.write_to_path(str(self.authority))
        trustme.CA().cert_pem.write_to_path(str(self.other))
        leaf = signer.issue_cert("localhost")
        leaf.cert_chain_pems[0].write_to_path(str(self.certificate[0]))
        leaf.private_key_pem.write_to_path(str(self.certificate[1]))

    async def told(self, mode: str, authority: Path, *, host: str = "localhost") -> str:
        """Return what is said of a refusal; nothing when all is well."""
        url = f"{self.url}&sslmode={mode}&sslrootcert={authority}"
        try:
            database = open_database(url.replace("localhost", host))
            try:
                await Repository(database).observe()
            finally:
                await database.close()
        except (DatabaseUnreachable, InvalidInput) as error:
            return str(error)
        return ""


@pytest.fixture
def place(postgres_url: str) -> Iterator[Place]:
    with tempfile.TemporaryDirectory(prefix="fp-pgt-") as directory:
        made = Place(Path(directory))
        pooler = a_pgbouncer(
            postgres_url, Path(directory), pool_size=2, certificate=made.certificate
        )
        with pooler as made.url:
            yield made


async def test_server_that_proves_who_it_is_is_believed(place: Place) -> None:
    assert await place.told("verify-full", place.authority) == ""


async def test_server_is_found_among_several(place: Place) -> None:
    told = await place.told("verify-full", place.authority, host="localhost:1,localhost")
    assert told == ""


@pytest.mark.parametrize("mode", ["verify-ca", "verify-full"])
async def test_certificate_of_another_authority_is_told_as_such(place: Place, mode: str) -> None:
    told = await place.told(mode, place.other)
    assert "cannot be reached by TLS ([SSL: CERTIFICATE_VERIFY_FAILED]" in told
    assert "check sslmode, sslrootcert" in told
    assert PASSWORD not in told


async def test_certificate_for_another_name_is_told_where_names_are_asked_for(place: Place) -> None:
    told = await place.told("verify-full", place.authority, host="127.0.0.1")
    assert "certificate is not valid for '127.0.0.1'" in told
    assert "the name in the server's certificate" in told
    assert await place.told("verify-ca", place.authority, host="127.0.0.1") == ""


async def test_authority_that_is_not_there_is_named(place: Place, tmp_path: Path) -> None:
    absent = tmp_path / "absent.pem"
    assert f"sslrootcert '{absent}' cannot be read" in await place.told("verify-full", absent)


async def test_file_that_holds_no_certificate_is_told(place: Place) -> None:
    assert "cannot be reached by TLS (" in await place.told("verify-full", place.certificate[1])
