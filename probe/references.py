"""Secrets by reference: a target names one, this prober has it, the bus never does.

Who writes targets chooses the reference, so a reference reaches nothing else: `file:NAME` one
file below `secrets_directory`, `env:NAME` one variable whose own name says that it is a secret.
Asked when a target is loaded. No error shows a value, nor a text that is no reference: somebody
may have put the secret itself there.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from stat import S_ISREG
from typing import Final

from probe.errors import UnsupportedCheck

VARIABLE_PREFIX: Final = "FLEETPULSE_SECRET_"
SECRET_MAX_BYTES: Final = 8192
MASK: Final = "***"
_VARIABLE: Final = re.compile(rf"{VARIABLE_PREFIX}[A-Z0-9_]{{1,128}}")
_FILE: Final = re.compile(r"[0-9A-Za-z_-][0-9A-Za-z._-]*(/[0-9A-Za-z_-][0-9A-Za-z._-]*){0,7}")


class Secret:
    """A value that prints, formats and pickles as three stars; `reveal` is the only way to it."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the value."""
        return self._value

    def __repr__(self) -> str:
        return f"Secret({MASK})"

    def __str__(self) -> str:
        return MASK

    def __reduce__(self) -> tuple[type["Secret"], tuple[str]]:
        return Secret, (MASK,)


class References:
    """Where this prober keeps secrets: a directory, if it has one, and its environment."""

    def __init__(self, directory: Path | None, environ: Mapping[str, str]) -> None:
        self._directory = directory
        self._environ = environ

    def __repr__(self) -> str:
        return f"References({str(self._directory)!r})"

    def value(self, reference: str) -> Secret:
        """Read what `reference` names, as it is now: a rotated secret is the new one.

        Raises:
            UnsupportedCheck: if it is no reference, or what it names is not there or unusable.
        """
        kind, _, name = reference.partition(":")
        if kind == "env" and _VARIABLE.fullmatch(name):
            return self._variable(name)
        if kind == "file" and is_below(name):
            return self._file(name)
        raise UnsupportedCheck(
            f"a reference is env:{VARIABLE_PREFIX}NAME (upper case) or file:NAME, a file below "
            f"secrets_directory; what is given is neither ({len(reference)} characters)"
        )

    def _variable(self, name: str) -> Secret:
        value = self._environ.get(name, "")
        if not value:
            raise UnsupportedCheck(f"env:{name} is not set in the prober's environment; set it")
        return Secret(value)

    def _file(self, name: str) -> Secret:
        if self._directory is None:
            raise UnsupportedCheck(f"file:{name} cannot be read: secrets_directory is not set")
        try:
            text = read_below(self._directory, name, max_bytes=SECRET_MAX_BYTES).decode("utf-8")
        except (OSError, ValueError) as error:
            raise UnsupportedCheck(f"file:{name}: {_why(error)}") from None
        value = text.removesuffix("\n").removesuffix("\r")
        if not value:
            raise UnsupportedCheck(f"file:{name} is empty; write the secret into it")
        return Secret(value)


def is_below(name: str) -> bool:
    """Tell whether `name` is a plain file name, or several as a path, none of them hidden."""
    return _FILE.fullmatch(name) is not None


def find_below(directory: Path, name: str) -> Path:
    """Return the real path of the regular file `name` below `directory`.

    Links are followed as long as they stay below it: mounted secrets are rotated by links.

    Raises:
        ValueError: if it is not below, or not a regular file.
        OSError: if it is not there.
    """
    if not is_below(name):
        raise ValueError("is not a plain file name")
    root = directory.resolve(strict=True)
    path = (root / name).resolve(strict=True)
    if not path.is_relative_to(root):
        raise ValueError("leads out of its directory")
    if not S_ISREG(path.stat().st_mode):
        raise ValueError("is not a regular file")
    return path


def read_below(directory: Path, name: str, *, max_bytes: int) -> bytes:
    """Read the file `name` below `directory`; raises as `find_below`, and if it is too long."""
    with find_below(directory, name).open("rb") as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise ValueError(f"is longer than {max_bytes} bytes")
    return content


def _why(error: OSError | ValueError) -> str:
    """Say what is wrong without a word of the content, which a decoding error would quote."""
    if isinstance(error, UnicodeDecodeError):
        return "is not UTF-8 text"
    return str(error.strerror if isinstance(error, OSError) else error)
