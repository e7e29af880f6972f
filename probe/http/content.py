"""What headers and body of a reply must hold, and what to say when they do not.

Pure; built once per target by `probe.admit`, asked once per reply with an expected status. It
reads what a stranger sent: the work is bounded by the caps of `probe.http.response`, a path is
walked and never searched, and nothing of a body is executed, inflated or followed.
"""

import re
from dataclasses import dataclass
from typing import Final

import msgspec

from probe.errors import MalformedEntry
from probe.http.response import Reply
from probe.specs import HttpCheck, JsonExpectation

REPLICA_ID: Final = "{replica_id}"
"""Stands for the target's own id in an expected text."""
PLACES_MAX: Final = 32
"""Steps of one JSON path; a model list needs three."""
EXPECTATIONS_MAX: Final = 32
EXCERPT_MAX_CHARS: Final = 60
"""Of each text in a detail: a path, what it should hold and what it holds fit into 200."""

_NAME: Final = r"[^.\[\]]+"
_INDEX: Final = r"\[(?:0|[1-9]\d{0,5})\]"
_JSON_PATH: Final = re.compile(rf"(?:{_NAME}|{_INDEX})(?:\.{_NAME}|{_INDEX})*")
_STEP: Final = re.compile(rf"{_NAME}|{_INDEX}")
_NOT_THERE: Final = object()

Place = str | int
"""One step into a JSON value: a member's name, or an index."""
Scalar = str | int | float | bool


@dataclass(frozen=True, slots=True)
class JsonRule:
    """One `JsonExpectation`, ready to be looked up."""

    path: str
    places: tuple[Place, ...]
    equals: Scalar | None
    """None: it is enough that something is there."""


@dataclass(frozen=True, slots=True)
class Content:
    """All that a reply must hold beyond its status; `of` builds it."""

    headers: tuple[tuple[bytes, bytes], ...]
    """Lower-case names, each with the text that one header of that name must contain."""
    body_contains: bytes
    """Empty: nothing is asked of the body as text."""
    json: tuple[JsonRule, ...]

    @classmethod
    def of(cls, check: HttpCheck, *, replica_id: str) -> "Content | None":
        """Build what `check` asks of a reply; None when the status is all it asks for.

        Raises:
            MalformedEntry: if a JSON path is none, there are too many expectations, or none of
                them tells this replica from another although `identity` is asked for.
        """
        if not (check.headers or check.body_contains or check.json or check.identity):
            return None
        asked = (*check.headers.values(), check.body_contains, *(e.equals for e in check.json))
        if check.identity and not any(isinstance(a, str) and REPLICA_ID in a for a in asked):
            raise MalformedEntry(
                f"checks: identity needs {REPLICA_ID} in an expected text; write for example "
                f'"headers": {{"X-Replica": "{REPLICA_ID}"}}'
            )
        if len(check.headers) + len(check.json) > EXPECTATIONS_MAX:
            raise MalformedEntry(
                f"checks: {len(check.headers) + len(check.json)} headers and json paths are "
                f"expected; write at most {EXPECTATIONS_MAX}"
            )

        def filled(text: str) -> bytes:
            return text.replace(REPLICA_ID, replica_id).encode()

        return cls(
            tuple((name.lower().encode(), filled(text)) for name, text in check.headers.items()),
            filled(check.body_contains or ""),
            tuple(_rule(expectation, replica_id) for expectation in check.json),
        )

    def mismatch(self, reply: Reply) -> str | None:
        """Return the first expectation that `reply` does not meet and what it holds, or None."""
        for name, wanted in self.headers:
            found = [value for held, value in reply.headers if held == name]
            if not any(wanted in value for value in found):
                held_text = shown(b", ".join(found)) if found else "nothing"
                return f"header {name.decode()}: expected {shown(wanted)}, found {held_text}"
        if not self.body_contains and not self.json:
            return None
        encoded = [value for held, value in reply.headers if held == b"content-encoding"]
        if any(value.strip().lower() != b"identity" for value in encoded):
            return f"body is encoded ({shown(b', '.join(encoded))}), and a probe inflates nothing"
        if self.body_contains not in reply.body:
            found_text = f"{len(reply.body)} bytes beginning {shown(reply.body)}"
            return f"body: expected {shown(self.body_contains)} in it, found {found_text}"
        return self._json_mismatch(reply.body) if self.json else None

    def _json_mismatch(self, body: bytes) -> str | None:
        try:
            document = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            why = str(error)[:EXCERPT_MAX_CHARS]
            return f"body is not JSON ({why}): {len(body)} bytes beginning {shown(body)}"
        except RecursionError:
            return f"body is not JSON that can be read: {len(body)} bytes nested too deeply"
        for rule in self.json:
            found = looked_up(document, rule.places)
            if not _meets(found, rule.equals):
                wanted = "something" if rule.equals is None else shown(rule.equals)
                held = "nothing there" if found is _NOT_THERE else shown(found)
                return f"json {rule.path[:EXCERPT_MAX_CHARS]}: expected {wanted}, found {held}"
        return None


def parse_json_path(path: str) -> tuple[Place, ...]:
    """Return the steps of a dotted path.

    >>> parse_json_path("data[0].id"), parse_json_path("[2]")
    (('data', 0, 'id'), (2,))

    Raises:
        MalformedEntry: if it is not names joined by dots, with list places in brackets.
    """
    steps = _STEP.findall(path) if _JSON_PATH.fullmatch(path) else []
    if not 0 < len(steps) <= PLACES_MAX:
        raise MalformedEntry(
            f"checks: json path {path!a} cannot be followed; write for example data[0].id, "
            f"with at most {PLACES_MAX} steps"
        )
    return tuple(int(step[1:-1]) if step[0] == "[" else step for step in steps)


def looked_up(document: object, places: tuple[Place, ...]) -> object:
    """Return the value at `places` of a decoded JSON document; `_NOT_THERE` if there is none."""
    for place in places:
        if isinstance(place, str):
            document = document.get(place, _NOT_THERE) if isinstance(document, dict) else _NOT_THERE
        elif isinstance(document, list) and place < len(document):
            document = document[place]
        else:
            return _NOT_THERE
    return document


def shown(value: object) -> str:
    r"""Return a value for a detail: escaped, quoted if it is text, cut.

    >>> shown(b"caf\xc3\xa9\n"), shown({"a": [1]})
    ("'caf\\xe9\\n'", '{"a":[1]}')
    """
    if isinstance(value, bytes):
        value = value[: 4 * EXCERPT_MAX_CHARS].decode("utf-8", "replace")
    if isinstance(value, str):
        cut = value[:EXCERPT_MAX_CHARS]
        return ascii(cut) + ("..." if len(value) > len(cut) else "")
    text = ascii(msgspec.json.encode(value).decode())[1:-1]
    return text if len(text) <= EXCERPT_MAX_CHARS else text[:EXCERPT_MAX_CHARS] + "..."


def _rule(expectation: JsonExpectation, replica_id: str) -> JsonRule:
    equals = expectation.equals
    if isinstance(equals, str):
        equals = equals.replace(REPLICA_ID, replica_id)
    return JsonRule(expectation.path, parse_json_path(expectation.path), equals)


def _meets(found: object, equals: Scalar | None) -> bool:
    """Tell whether a value is the expected one; yes and no are no numbers here, as in JSON."""
    if equals is None:
        absent = found is _NOT_THERE or found is None or found is False
        return not absent and found not in ("", [], {})
    if isinstance(found, bool) or isinstance(equals, bool):
        return found is equals
    return found == equals
