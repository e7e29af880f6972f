"""The API of a controller, as the commands reach it: address, token, certificate."""

import os
import ssl
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import httpx

from controller.client import ApiClient
from controller.errors import InvalidInput
from controller.settings import is_loopback

TOKEN_VARIABLE: Final = "FLEETPULSE_API_TOKEN"  # noqa: S105 - the variable's name
TIMEOUT_S: Final = 30.0


def client_of(
    api_url: str, *, token_file: Path | None = None, ca_file: Path | None = None
) -> ApiClient:
    """Return a client of the API; nothing is asked yet.

    Raises:
        InvalidInput: if the address, the token or the authorities cannot be used.
    """
    url = _checked(api_url)
    token = _token(token_file)
    secure = url.startswith("https://")
    if token and not secure and not is_loopback(urlsplit(url).hostname or ""):
        raise InvalidInput(
            f"API URL {url!r}: a token is not sent in clear to another machine; use https://"
        )
    http = httpx.AsyncClient(
        base_url=url,
        headers={"authorization": f"Bearer {token}"} if token else {},
        verify=_authorities(ca_file) if secure else False,
        timeout=TIMEOUT_S,
        trust_env=False,  # a proxy of the environment must not see the token
    )
    return ApiClient(http)


def _checked(url: str) -> str:
    try:
        parts = urlsplit(url)
        usable = (
            parts.scheme in ("http", "https")
            and parts.port != 0
            and bool(httpx.URL(url).host)  # it refuses names that the standard library lets pass
            and not (parts.path.strip("/") or parts.query or parts.fragment or parts.username)
        )
    except (ValueError, httpx.InvalidURL):
        usable = False
    if not usable:
        raise InvalidInput(
            f"API URL {url!r} cannot be used; write for example https://controller:9156, the "
            "token in a file of its own"
        )
    return f"{parts.scheme}://{parts.netloc}"


def _token(path: Path | None) -> str:
    if path is None:
        token = os.environ.get(TOKEN_VARIABLE, "").strip()
        where = TOKEN_VARIABLE
    else:
        try:
            token = path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInput(f"the token file {path} cannot be read: {error}") from error
        where = str(path)
    if not (token.isascii() and token.isprintable()) or len(token.split()) > 1:
        raise InvalidInput(f"{where} does not hold one token and nothing else")
    return token


def _authorities(path: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=path)
    except (OSError, ssl.SSLError) as error:
        raise InvalidInput(f"the authorities in {path} cannot be used: {error}") from error
