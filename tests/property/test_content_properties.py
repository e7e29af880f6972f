"""What a stranger's reply can do to the checks of its content: nothing but pass or be told of."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from probe.check import printable, redacted
from probe.errors import MalformedEntry
from probe.http.content import Content, parse_json_path
from probe.http.response import Reply
from probe.specs import HttpCheck, JsonExpectation
from probe.wire import DETAIL_MAX_CHARS

_names = st.text(st.characters(exclude_characters=".[]", codec="utf-8"), min_size=1, max_size=5)
_scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(max_size=9)
_documents = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_names, inner, max_size=3),
    max_leaves=12,
)


def content(**asked: Any) -> Content:  # noqa: ANN401 - any field of a check
    built = Content.of(HttpCheck(**asked), replica_id="r")
    assert built is not None
    return built


def places(value: object, path: str = "") -> dict[str, object]:
    """Return every place of a document by its path."""
    found = {path: value} if path else {}
    if isinstance(value, dict):
        for name, inner in value.items():
            found |= places(inner, f"{path}.{name}" if path else name)
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            found |= places(inner, f"{path}[{number}]")
    return found


@given(_documents)
def test_every_scalar_of_a_document_is_found_by_its_path(document: object) -> None:
    body = json.dumps(document).encode()
    for path, value in places(document).items():
        if isinstance(value, str | bool | int):
            asked = content(json=(JsonExpectation(path=path, equals=value),))
            assert asked.mismatch(Reply(200, reusable=True, body=body)) is None


@given(_documents, st.text(max_size=12))
def test_path_leads_to_its_place_or_nowhere(document: object, path: str) -> None:
    try:
        parse_json_path(path)
    except MalformedEntry:
        assert path not in places(document)
        return
    asked = content(json=(JsonExpectation(path=path),))
    met = asked.mismatch(Reply(200, reusable=True, body=json.dumps(document).encode())) is None
    value = places(document).get(path)
    assert met == (value is not None and value is not False and value not in ("", [], {}))


@given(
    st.binary(max_size=400) | _documents.map(lambda d: json.dumps(d).encode()),
    st.lists(st.tuples(st.sampled_from([b"x-a", b"content-encoding"]), st.binary(max_size=90))),
    st.text(min_size=1, max_size=99),
)
def test_any_reply_passes_or_is_told_of_in_200_visible_characters(
    body: bytes, headers: list[tuple[bytes, bytes]], text: str
) -> None:
    for asked in (
        {"headers": {"X-A": text}},
        {"body_contains": text},
        {"json": (JsonExpectation(path="a"), JsonExpectation(path="b", equals=text))},
    ):
        said = content(**asked).mismatch(
            Reply(200, reusable=True, headers=tuple(headers), body=body)
        )
        if said is not None:
            shown = printable(said)
            assert len(shown) <= DETAIL_MAX_CHARS
            assert shown.isascii()
            assert shown.isprintable()


@given(
    st.text(max_size=60), st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=8)
)
def test_no_eight_characters_of_a_secret_are_shown(text: str, secret: str) -> None:
    for said in (text + secret + text, secret[:9] + text, repr(secret + text)):
        shown = redacted(said, (secret,))
        runs = {secret[at : at + 8] for at in range(len(secret) - 7)}
        assert not any(run in shown for run in runs)
