"""Who may do what: roles, and the file of tokens that says who has which.

A line of the file is NAME ROLE TOKEN, the token in clear or as `sha256:` and its digest in hex.
Read anew when it changes; one that cannot be used any more is told in the log, and what it said
last goes on to hold. Tokens are compared by digest, all of them, in constant time.
"""

import hashlib
import hmac
import os
import re
import stat
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Final, NamedTuple

import structlog

from probe.errors import SettingsError

TOKEN_MIN_CHARS: Final = 16
LOOK_EVERY_S: Final = 1.0
"""How often the file is looked at for a change."""
TELL_EVERY_S: Final = 10.0
"""How often refused tokens are told in the log, however many there were."""
_log = structlog.get_logger("api")
_NAME: Final = re.compile(r"\A[A-Za-z0-9._@-]{1,64}\Z")
_DIGEST: Final = re.compile(r"\Asha256:[0-9a-f]{64}\Z")
_SIZE_MAX_BYTES: Final = 1_048_576
_FORBIDDEN_MODE: Final = stat.S_IWGRP | stat.S_IRWXO


class Role(StrEnum):
    """What somebody may do."""

    VIEWER = "viewer"
    """Look at everything."""
    OPERATOR = "operator"
    """Change things, too."""

    def covers(self, needed: "Role") -> bool:
        """Tell whether this role may do what `needed` may."""
        return self is Role.OPERATOR or needed is Role.VIEWER


class Principal(NamedTuple):
    """Who asks."""

    name: str
    role: Role


OPERATOR: Final = Principal("operator", Role.OPERATOR)
"""Who reaches a port that only this machine can reach."""
NOBODY: Final = Principal("nobody", Role.VIEWER)
"""Who asks where nothing can be changed."""


class _Key(NamedTuple):
    digest: bytes
    principal: Principal


class Tokens:
    """The tokens of one file."""

    def __init__(self, path: Path, *, clock: Callable[[], float]) -> None:
        """Read the file.

        Raises:
            SettingsError: if it cannot be used; names the line, never the token.
        """
        self._path = path
        self._clock = clock
        self._looked_at = clock()
        self._told_at, self._refused = float("-inf"), 0
        self._stamp = _stamp(path)
        self._keys = _read(path)

    def principal_of(self, token: str) -> Principal | None:
        """Return who has this token; None if nobody has."""
        self._look_again()
        given = hashlib.sha256(token.encode()).digest()
        found = None
        for key in self._keys:  # all of them: the time taken tells nothing
            if hmac.compare_digest(key.digest, given):
                found = key.principal
        if found is None:
            self._tell_refusal()
        return found

    def _tell_refusal(self) -> None:
        self._refused += 1
        if self._clock() - self._told_at >= TELL_EVERY_S:
            _log.warning("api_token_refused", times=self._refused)
            self._told_at, self._refused = self._clock(), 0

    def _look_again(self) -> None:
        now = self._clock()
        if now - self._looked_at < LOOK_EVERY_S:
            return
        self._looked_at = now
        stamp = _stamp(self._path)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._keys = _read(self._path)
        except SettingsError as error:
            _log.error("api_tokens_unusable", error=str(error))
        else:
            _log.info("api_tokens_read", tokens=len(self._keys))


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        found = path.stat()
    except OSError:
        return ()
    return (found.st_mtime_ns, found.st_size, found.st_ino, found.st_mode)


def _read(path: Path) -> tuple[_Key, ...]:
    where = f"controller.api_tokens_file = {str(path)!r}"
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(_SIZE_MAX_BYTES + 1).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{where} cannot be read: {error}") from error
    if mode & _FORBIDDEN_MODE:
        raise SettingsError(
            f"{where} may be read by others or written by its group ({stat.filemode(mode)}): "
            f"chmod 600 {path}"
        )
    lines = [(number, line.split()) for number, line in enumerate(text.splitlines(), start=1)]
    keys = tuple(
        _key(f"{where}, line {number}", words)
        for number, words in lines
        if words and not words[0].startswith("#")
    )
    if not keys:
        raise SettingsError(f"{where} holds no token: write lines of NAME ROLE TOKEN")
    if len({key.digest for key in keys}) < len(keys):
        raise SettingsError(f"{where} holds one token twice: who uses it could be either")
    return keys


def _key(where: str, words: list[str]) -> _Key:
    match words:
        case [name, ("viewer" | "operator") as role, token] if _NAME.match(name):
            return _Key(_digest(where, token), Principal(name, Role(role)))
        case _:
            raise SettingsError(
                f"{where}: write NAME ROLE TOKEN, with {' or '.join(Role)} as the role"
            )


def _digest(where: str, token: str) -> bytes:
    if token.startswith("sha256:"):
        if not _DIGEST.match(token):
            raise SettingsError(f"{where}: write sha256: and 64 hex digits in lower case")
        return bytes.fromhex(token.removeprefix("sha256:"))
    if len(token) < TOKEN_MIN_CHARS:
        raise SettingsError(
            f"{where}: the token is shorter than {TOKEN_MIN_CHARS} characters; make one with "
            "`openssl rand -hex 32`"
        )
    return hashlib.sha256(token.encode()).digest()
