"""Text that a person wrote, as plain values: TOML, YAML or JSON, and each key once.

Used for deployment files and for definition files. What the values mean is not known here. A key
that stands twice is refused with its place, where the usual readers keep one of them in silence;
so is half a character, which they take and no database does.
"""

import json
import re
import tomllib
from collections import Counter
from collections.abc import Hashable, Iterator
from enum import StrEnum
from pathlib import PurePath
from typing import Any, Final

import yaml

from controller.errors import InvalidInput

SIZE_MAX_CHARS: Final = 1_048_576
"""A file has a few hundred; a megabyte is something else."""
_HALF: Final = re.compile("[\ud800-\udfff]")
"""JSON and YAML can name half of a pair by itself; JSON puts whole pairs together."""


class Syntax(StrEnum):
    """What a file may be written in."""

    TOML = "toml"
    YAML = "yaml"
    JSON = "json"


def syntax_of(filename: str) -> Syntax:
    """Return the syntax that a file's name promises.

    Raises:
        InvalidInput: if it promises none.
    """
    suffix = PurePath(filename).suffix.lower().removeprefix(".")
    match suffix:
        case "toml" | "json":
            return Syntax(suffix)
        case "yaml" | "yml":
            return Syntax.YAML
        case _:
            raise InvalidInput(
                f"{filename!r} does not say what it is written in; name it .toml, .yaml or .json"
            )


def load(text: str, *, syntax: Syntax, what: str) -> object:
    """Return what `text` holds; `what` names it in the errors.

    Raises:
        InvalidInput: if it is too long, not of the syntax, or has a key twice or half a character.
    """
    if len(text) > SIZE_MAX_CHARS:
        raise InvalidInput(f"{what} has {len(text)} characters; at most {SIZE_MAX_CHARS} are read")
    try:
        match syntax:
            case Syntax.TOML:
                return tomllib.loads(text)
            case Syntax.YAML:
                return yaml.load(text, _EachKeyOnce)  # noqa: S506 - a SafeLoader
            case Syntax.JSON:
                return _from_json(text)
    except _Unwanted as error:
        raise InvalidInput(f"{what}: {error}") from error
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise InvalidInput(f"{what} is not {syntax.upper()}: {reason}") from error


class _Unwanted(Exception):  # noqa: N818 - reads as what it is
    """It is of the syntax, and says what nobody can mean; with the place."""


class _EachKeyOnce(yaml.SafeLoader):
    """Builds plain values; text that looks like a date stays text, as in JSON."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - the library's own way to say it
        first: [(tag, seen) for tag, seen in known if tag != "tag:yaml.org,2002:timestamp"]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_object(
        self,
        node: yaml.Node,
        deep: bool = False,  # noqa: FBT001, FBT002 - as inherited
    ) -> object:
        try:
            found = super().construct_object(node, deep=deep)
        except (LookupError, AttributeError, ValueError) as error:  # a tag that does not fit
            kind = node.tag.rpartition(":")[2]
            raise _Unwanted(f"{_line(node)}: {str(node.value)[:80]!r} is no {kind}") from error
        if isinstance(found, str) and _HALF.search(found):
            raise _Unwanted(f"{_line(node)}: {_half(found)}")
        return found

    def construct_mapping(
        self,
        node: yaml.MappingNode,
        deep: bool = False,  # noqa: FBT001, FBT002 - as inherited
    ) -> dict[Hashable, Any]:
        known: set[object] = set()
        for key_node, _ in node.value if node.id == "mapping" else ():
            place = _line(key_node)
            if key_node.tag == "tag:yaml.org,2002:merge":
                # A kilobyte of merged merges is a gigabyte of keys.
                raise _Unwanted(f"{place}: '<<' is not read; write the keys out")
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                raise _Unwanted(f"{place}: a key must be text")
            if key in known:
                raise _Unwanted(f"{place}: the key {key!r} stands there twice; keep one")
            known.add(key)
        return super().construct_mapping(node, deep=deep)


def _line(node: yaml.Node) -> str:
    return f"line {node.start_mark.line + 1}"


def _half(text: str) -> str:
    return f"{text[:80]!r} holds half a character; write the whole one"


class _Pairs(dict[str, Any]):
    """An object of JSON that remembers which key stands in it twice."""

    twice: str | None = None


def _from_json(text: str) -> object:
    found = json.loads(text, object_pairs_hook=_pairs)
    for fault in _faults(found, ""):
        raise _Unwanted(fault)
    return found


def _pairs(pairs: list[tuple[str, Any]]) -> _Pairs:
    made = _Pairs(pairs)
    if len(made) < len(pairs):
        count = Counter(key for key, _ in pairs)
        made.twice = next(key for key in made if count[key] > 1)
    return made


def _faults(value: object, where: str) -> Iterator[str]:
    """Yield what nobody can mean: keys that stand twice, and half characters."""
    match value:
        case str() if _HALF.search(value):
            yield f"{where or 'the document'}: {_half(value)}"
        case _Pairs():
            before = f"{where}." if where else ""
            if value.twice is not None:
                yield f"the key '{before}{value.twice}' stands there twice; keep one"
            for key, inner in value.items():
                yield from _faults(key, where)
                yield from _faults(inner, f"{before}{key}")
        case list():
            for number, inner in enumerate(value):
                yield from _faults(inner, f"{where}[{number}]")
        case _:
            pass
