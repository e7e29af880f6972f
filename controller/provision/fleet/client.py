"""Speaks to the fleet process: the provisioner's calls, and the breaking of replicas for tests."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import httpx
import msgspec

from controller.errors import NotFound, ProvisionError
from controller.provision.fleet.messages import Count, Inject, Mend, Report, Wanted
from controller.provision.fleet.replica import Fault, Repair

_TIMEOUT_S = 30.0
"""Starting ten thousand replicas takes under 2 s; beyond this the process is not well."""
_Answer = TypeVar("_Answer")


class FleetClient:
    """One fleet, by its socket. Every call raises ProvisionError if the fleet cannot be asked."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._http = httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(uds=str(path), retries=0),
            base_url="http://fleet",
            timeout=_TIMEOUT_S,
            trust_env=False,
        )

    async def start(self, wanted: Iterable[Wanted]) -> dict[str, str]:
        """Start replicas; return for each id why it was refused, or nothing."""
        return await self._post("/start", tuple(wanted), dict[str, str])

    async def inspect(self, ids: Iterable[str]) -> dict[str, Report]:
        """Return what is known of those of `ids` that exist."""
        return await self._post("/inspect", tuple(ids), dict[str, Report])

    async def stop(self, ids: Iterable[str]) -> None:
        """Stop replicas; ids not known are stopped already."""
        await self._post("/stop", tuple(ids), tuple[str, ...])

    async def inject(self, ids: Iterable[str], fault: Fault, *, seconds: float = 1.0) -> None:
        """Break replicas at once; `seconds` is half the period of FLAP, the delay of SLOW.

        Raises:
            NotFound: if one of `ids` is not known; the others were broken.
        """
        body = Inject(ids=tuple(ids), fault=fault, seconds=seconds)
        _all_known(await self._post("/inject", body, tuple[str, ...]))

    async def repair(self, ids: Iterable[str], how: Repair) -> None:
        """Repair replicas at once.

        Raises:
            NotFound: if one of `ids` is not known; the others were repaired.
        """
        body = Mend(ids=tuple(ids), how=how)
        _all_known(await self._post("/repair", body, tuple[str, ...]))

    async def counts(self, ids: Iterable[str]) -> dict[str, Count]:
        """Return what those of `ids` that exist have seen since they started."""
        return await self._post("/counts", tuple(ids), dict[str, Count])

    async def close(self) -> None:
        """Close the connection; the fleet lives on."""
        await self._http.aclose()

    async def _post(self, path: str, body: Any, answer: type[_Answer]) -> _Answer:  # noqa: ANN401 - whatever msgspec encodes
        try:
            response = await self._http.post(path, content=msgspec.json.encode(body))
        except httpx.HTTPError as error:
            raise ProvisionError(
                f"the simulated fleet at {self._path} does not answer ({error!r}): is it running?"
            ) from error
        if response.status_code != httpx.codes.OK:
            raise ProvisionError(f"the simulated fleet refused {path}: {response.text}")
        return msgspec.json.decode(response.content, type=answer)


def _all_known(unknown: tuple[str, ...]) -> None:
    if unknown:
        raise NotFound(
            f"no simulated replica {unknown[0]} ({len(unknown)} of those named are unknown): "
            "it was never started, or was stopped"
        )
