"""Debian's PgBouncer in transaction mode, before a PostgreSQL server of the tests.

Refuses to run as root, as PostgreSQL does, and is helped in the same way. It also stands for a
server that speaks TLS, which the wheel's was not built for.
"""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit, urlunsplit

from controller.child import Child
from controller.embedded import free_port
from tests.fakes.postgres import START_S, as_anybody
from tests.fakes.services import program

_PORT = 6432  # of a socket's name in a private directory, not of the machine
_CONFIGURATION = """
[databases]
* = host={server_host} port={server_port}
[pgbouncer]
listen_addr =
listen_port = {port}
unix_socket_dir = {directory}
auth_type = any
pool_mode = transaction
default_pool_size = {pool_size}
max_client_conn = 100
"""
_TLS = """
listen_addr = 127.0.0.1
client_tls_sslmode = require
client_tls_cert_file = {certificate}
client_tls_key_file = {key}
"""


@contextmanager
def a_pgbouncer(
    url: str, directory: Path, *, pool_size: int, certificate: tuple[Path, Path] | None = None
) -> Iterator[str]:
    """Return the URL of the same database behind a pooler with so many connections to it.

    With a certificate (and its key) it is reached at `localhost`, by TLS alone.
    """
    binary = program("pgbouncer", package="pgbouncer")
    parts = urlsplit(url)
    host = parse_qs(parts.query).get("host", [parts.hostname or ""])[0]
    port = _PORT if certificate is None else free_port()
    configuration = directory / "pgbouncer.ini"
    # The user is the URL's, which auth_type any would not pass on.
    text = _CONFIGURATION.format(
        server_host=host,
        server_port=parts.port or 5432,
        port=port,
        directory=directory,
        pool_size=pool_size,
    ).replace("port=5432", f"port=5432 user={parts.username}")
    place = f"host={directory}&port={port}"
    if certificate is not None:
        text += _TLS.format(certificate=certificate[0], key=certificate[1])
        place = f"host=localhost&port={port}"
    configuration.write_text(text)
    process = Child(
        [*as_anybody(), str(binary), str(configuration)], log_path=directory / "pgbouncer.log"
    )
    process.start()
    try:
        _wait_for(directory / f".s.PGSQL.{port}", process)
        yield urlunsplit(
            parts._replace(
                netloc=f"{parts.username}:{parts.password}@",
                query=place,
            )
        )
    finally:
        process.end()


def _wait_for(path: Path, process: Child) -> None:
    deadline = time.monotonic() + START_S
    while True:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as knock:
            try:
                knock.connect(os.fspath(path))
            except OSError:
                if process.pid is None or time.monotonic() > deadline:
                    message = f"PgBouncer does not start: {process.log_tail()}"
                    raise AssertionError(message) from None
            else:
                return
        time.sleep(0.01)
