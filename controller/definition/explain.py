"""A decoder's complaint as a sentence: the place, what was found there, and what to write.

Used for every document a person writes. Knows the shapes that msgspec was asked for, and nothing
of what the values mean; remedies come from who does.
"""

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from reprlib import Repr
from typing import Any, Final, get_args

import msgspec

_UNKNOWN: Final = re.compile(r"Object contains unknown field `(?P<key>.*)`", re.DOTALL)
_MISSING: Final = re.compile(r"Object missing required field `(?P<key>.*)`", re.DOTALL)
_PLACED: Final = re.compile(r"(?P<what>.*?)(?: - at `\$\.?(?P<where>.*)`)?", re.DOTALL)
_INDEX: Final = re.compile(r"\[\d+\]")
_STEP: Final = re.compile(r"[^.\[\]]+|\[\d+\]")


def explain(
    problem: str,
    document: object,
    *,
    kind: type[msgspec.Struct],
    what: str,
    remedies: Mapping[str, str],
) -> str:
    """Return what is wrong with `document`, which is no `kind`.

    `remedies` are found by place (`revision.environment[...]`); by the key alone for one that is
    unknown and yet expected; the one of "" is for the document as a whole, which `what` names.
    """
    placed = _PLACED.fullmatch(problem)
    said, where = (placed["what"], placed["where"] or "") if placed else (problem, "")
    at = where or what
    if unknown := _UNKNOWN.fullmatch(said):
        key = unknown["key"]
        return (
            f"{at}: unknown key {key!r}; {remedies.get(key) or _near(key, _keys_at(where, kind))}"
        )
    if missing := _MISSING.fullmatch(said):
        return f"{at}: the key {missing['key']!r} is missing; add it"
    advice = remedies.get(_INDEX.sub("[...]", where))
    plain = said[:1].lower() + said[1:].replace("`", "")
    if advice and "matching regex" in plain:
        plain = "not allowed"
    if plain.startswith("invalid enum value"):
        plain = plain.replace("invalid enum value", "there is no")
        return f"{where}: {plain}; {advice}"
    return "; ".join(filter(None, (f"{at}: {plain}{_value_at(where, document)}", advice)))


def _near(key: str, known: Sequence[str]) -> str:
    near = get_close_matches(key, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"


def _keys_at(where: str, kind: type[msgspec.Struct]) -> list[str]:
    """Return the keys known at a place such as `revision.definition.models[0].service`."""
    for part in _STEP.findall(where):
        if not part.startswith("["):
            kinds = {field.name: field.type for field in msgspec.structs.fields(kind)}
            kind = _struct_in(kinds[part]) or kind
    return [field.name for field in msgspec.structs.fields(kind)]


def _struct_in(kind: Any) -> type[msgspec.Struct] | None:  # noqa: ANN401 - any annotation
    """Return the struct that an annotation speaks of, in a union or a list."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return kind
    return next(filter(None, map(_struct_in, get_args(kind))), None)


def _value_at(where: str, document: object) -> str:
    """Return `, found …` with the value at a place; nothing where it cannot be told."""
    if "..." in where:  # some value of a table: the decoder does not say which
        return ""
    found: Any = document
    for part in _STEP.findall(where):
        try:
            found = found[int(part[1:-1])] if part.startswith("[") else found[part]
        except (KeyError, IndexError, TypeError):
            return ""
    return "" if found is document else f", found {_short(found)}"[:120]


def _short(value: object) -> str:
    """Return the beginning of a value: whole, a kilobyte of aliases would be written as gigabytes.

    >>> _short([[[[["deep"]]]], *range(9)])
    '[[[...]], 0, 1, 2, ...]'
    """
    brief = Repr()
    brief.maxlevel, brief.maxlist, brief.maxdict, brief.maxstring = 2, 4, 4, 100
    return brief.repr(value)
