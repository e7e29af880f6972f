"""The operator's port of one controller: how it does, and the API unless that is switched off.

Opened by the daemon before anything else, so that an address or a file that cannot be used is told
at once. Answers as long as the process lives: a standby serves like the one that leads.
"""

import ssl
import time
from functools import partial
from pathlib import Path
from typing import Self

from controller.api.access import NOBODY, OPERATOR, Tokens
from controller.api.app import Api, Parts, only_pages
from controller.api.gate import Access, Gate
from controller.api.page import StandingNow
from controller.api.server import serve, tls_context
from controller.bus import ControlBus
from controller.db.session import Database, open_database
from controller.explaining import explain
from controller.model_folder import folders_of
from controller.service import Service
from controller.settings import Settings, is_loopback
from probe import ops
from probe.layers import parse_address


class Front:
    """One bound port and what is served on it."""

    def __init__(
        self, listener: ops.Listener, gate: Gate, *, tls: ssl.SSLContext | None, api: Api | None
    ) -> None:
        self._listener = listener
        self._gate = gate
        self._tls = tls
        self._api = api

    @classmethod
    async def open(
        cls, settings: Settings, pages: ops.Pages, *, standing: StandingNow, bus: ControlBus
    ) -> Self:
        """Bind the port, and read what it needs.

        Raises:
            SettingsError: if address, certificate or tokens cannot be used.
        """
        host, port = parse_address("controller.metrics", settings.metrics)
        tls = _tls(settings)
        if not settings.api:
            access = Access(tokens=None, loopback=is_loopback(host), anonymous=NOBODY)
            return cls(await ops.bind(host, port), only_pages(pages, access), tls=tls, api=None)
        file = settings.api_tokens_file
        access = Access(
            tokens=Tokens(Path(file), clock=time.monotonic) if file else None,
            loopback=is_loopback(host),
            anonymous=OPERATOR,
        )
        listener = await ops.bind(host, port)
        database = open_database(settings.database_url)
        api = Api(_parts(settings, database, bus, pages, standing), access)
        return cls(listener, api.gate, tls=tls, api=api)

    @property
    def url(self) -> str:
        """Return where it is."""
        scheme = "http" if self._tls is None else "https"
        return f"{scheme}://{ops.address_of(self._listener)}"

    async def serve(self) -> None:
        """Serve until cancelled."""
        api = self._api
        if api is None:
            await serve(self._gate, self._listener, tls=self._tls)
            return
        try:
            await serve(self._gate, self._listener, tls=self._tls, on_end=api.followers.end)
        finally:
            await api.close()


def _tls(settings: Settings) -> ssl.SSLContext | None:
    if not settings.api_certificate_file:
        return None
    key = Path(settings.api_key_file) if settings.api_key_file else None
    return tls_context(Path(settings.api_certificate_file), key)


def _parts(
    settings: Settings,
    database: Database,
    bus: ControlBus,
    pages: ops.Pages,
    standing: StandingNow,
) -> Parts:
    return Parts(
        pages=pages,
        verbs=Service(database, folders=folders_of(settings)),
        database=database,
        standing=standing,
        explained=partial(explain, database, bus, settings=settings),
    )
