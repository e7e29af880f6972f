"""Settings in layers: defaults, a table of a TOML file, the environment, flags; the last one wins.

Used by both daemons, each with its own frozen struct. The layers come in as values, so nothing
here reads the environment; every value remembers where it came from, for `--check-config`.
"""

import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from enum import Enum
from pathlib import Path
from types import UnionType
from typing import Final, Generic, Literal, NamedTuple, TypeVar, Union, get_args, get_origin

import msgspec

from probe.errors import SettingsError

TABLES: Final = ("probe", "controller")
"""One file may configure both daemons."""
PORT_MAX: Final = 65535
_USER_PASSWORD: Final = re.compile(r"(?<=//)([^:@/]*):.*@")
_QUERY_PASSWORD: Final = re.compile(r"([?&](?:ssl_)?password=)[^&#]*")

_Struct = TypeVar("_Struct", bound=msgspec.Struct)
_Layer = Iterable[tuple[str, object, str]]


class Address(NamedTuple):
    """Where a server listens."""

    host: str
    port: int


class Effective(NamedTuple, Generic[_Struct]):
    """The settings of one table, and for each key where its value came from."""

    table: str
    settings: _Struct
    sources: Mapping[str, str]

    def lines(self) -> Iterator[str]:
        """Yield the settings as a TOML file, secrets masked, each value with its source."""
        yield f"[{self.table}]"
        for name, source in self.sources.items():
            yield f"{name} = {json.dumps(_shown(getattr(self.settings, name)))}  # {source}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layers(Generic[_Struct]):
    """How one daemon's settings are gathered."""

    struct: type[_Struct]
    table: str
    """Of the TOML file; the environment's names are FLEETPULSE_{TABLE}__{KEY}."""
    shared_names: Mapping[str, str]
    """Environment variables that the commands share, and the key each one sets."""

    def load(
        self, file: Path | None, environ: Mapping[str, str], flags: Mapping[str, object]
    ) -> Effective[_Struct]:
        """Layer `file`, `environ` and `flags` over the defaults.

        Raises:
            SettingsError: if the file cannot be read, a key is unknown, or a value is out of
                range; names the key, its nearest known one, and where the value came from.
        """
        fields = {field.name: field.type for field in msgspec.structs.fields(self.struct)}
        values: dict[str, object] = {}
        sources = dict.fromkeys(fields, "default")
        for layer in (
            self._from_file(file, fields) if file is not None else (),
            self._from_environment(environ, fields),
            ((name, value, "flag") for name, value in flags.items()),
        ):
            for name, value, source in layer:
                values[name] = self._convert(name, value, source, fields[name])
                sources[name] = source
        return Effective(self.table, self.struct(**values), sources)

    def _from_file(self, path: Path, fields: Iterable[str]) -> _Layer:
        try:
            document = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"the settings file {path} cannot be read: {error}") from error
        except tomllib.TOMLDecodeError as error:
            raise SettingsError(f"the settings file {path} is not TOML: {error}") from error
        for name in document:
            if name not in TABLES:
                raise SettingsError(
                    f"{path}: unknown key {name!r}{nearest(name, [*TABLES, *fields])}; "
                    f"these settings stand in the table [{self.table}]"
                )
        table = document.get(self.table, {})
        if not isinstance(table, dict):
            raise SettingsError(f"{path}: {self.table!r} is not a table; write [{self.table}]")
        for name in table:
            if name not in fields:
                hint = nearest(name, fields, f"{self.table}.")
                raise SettingsError(f"{path}: unknown key '{self.table}.{name}'{hint}")
        return [(name, value, f"file {path}") for name, value in table.items()]

    def _from_environment(self, environ: Mapping[str, str], fields: Mapping[str, object]) -> _Layer:
        """List what the environment sets; a name of our own goes over a shared one."""
        layer: list[tuple[str, object, str]] = [
            (name, _split(fields[name], environ[variable]), f"environment {variable}")
            for variable, name in self.shared_names.items()
            if environ.get(variable)
        ]
        prefix = f"FLEETPULSE_{self.table.upper()}__"
        for variable, value in sorted(environ.items()):
            if not variable.startswith(prefix):
                continue
            name = variable.removeprefix(prefix).lower()
            if name not in fields:
                hint = nearest(variable, [f"{prefix}{field.upper()}" for field in fields])
                raise SettingsError(f"unknown environment variable {variable}{hint}")
            layer.append((name, _split(fields[name], value), f"environment {variable}"))
        return layer

    def _convert(self, name: str, value: object, source: str, kind: object) -> object:
        """Bring one value to its type; text is read as numbers only where it came as text."""
        try:
            return msgspec.convert(value, kind, strict=not source.startswith("env"))
        except msgspec.ValidationError as error:
            raise SettingsError(
                f"{self.table}.{name} = {_shown(value)!r} ({source}): {error}{_choices(kind)}"
            ) from error


def nearest(name: str, known: Iterable[str], prefix: str = "") -> str:
    """Return a hint at the known name closest to `name`; empty when none is close.

    >>> nearest("replcas", ["replicas", "policy"])
    ", did you mean 'replicas'?"
    """
    match get_close_matches(name, list(known), n=1, cutoff=0.5):
        case [close]:
            return f", did you mean '{prefix}{close}'?"
        case _:
            return ""


def _choices(kind: object) -> str:
    """Return the words that may be written, alone or beside another type; empty without any."""
    if isinstance(kind, type) and issubclass(kind, Enum):
        words = [repr(each.value) for each in kind]
        return f"; write one of {', '.join(words)}"
    joined = get_origin(kind) in {Union, UnionType}
    parts = get_args(kind) if joined else (kind,)
    words = [repr(word) for part in parts if get_origin(part) is Literal for word in get_args(part)]
    if not words:
        return ""
    return f", or {' or '.join(words)}" if joined else f"; write one of {', '.join(words)}"


def parse_address(key: str, text: str) -> Address:
    """Split HOST:PORT; an IPv6 host stands in brackets.

    >>> parse_address("probe.metrics", "[::1]:0")
    Address(host='::1', port=0)

    Raises:
        SettingsError: if `text` is not of that form, or the port is not in 0-65535.
    """
    host, colon, port = text.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    bracketed = host != bare
    if not (colon and bare and bracketed == (":" in bare) and port.isascii() and port.isdigit()):
        raise SettingsError(f"{key} = {text!r} is not HOST:PORT; write for example 127.0.0.1:9155")
    if int(port) > PORT_MAX:
        raise SettingsError(f"{key} = {text!r}: the port is not in 0-{PORT_MAX}")
    return Address(bare, int(port))


def mask_url(url: str) -> str:
    """Return `url` with its password, in either place, as three stars.

    >>> mask_url("redis://ops:s3cret@bus:6379/0?password=s3cret")
    'redis://ops:***@bus:6379/0?password=***'
    """
    return _QUERY_PASSWORD.sub(r"\1***", _USER_PASSWORD.sub(r"\1:***@", url))


def _shown(value: object) -> object:
    return mask_url(value) if isinstance(value, str) else value


def _split(kind: object, text: str) -> object:
    """Read a list from the environment: its parts stand between commas."""
    if getattr(kind, "__origin__", None) is tuple:
        return [part.strip() for part in text.split(",") if part.strip()]
    return text
