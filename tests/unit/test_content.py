"""What a reply must hold beyond its status, and what is said when it does not."""

from typing import Any

import pytest

from probe.errors import MalformedEntry
from probe.http.content import EXPECTATIONS_MAX, PLACES_MAX, Content, parse_json_path, shown
from probe.http.response import BODY_MAX_BYTES, Reply
from probe.specs import HttpCheck, JsonExpectation

REPLICA = "00000000-0000-4000-8000-000000000007"
MODELS = b'{"object": "list", "data": [{"id": "m-1", "ready": true, "queue": 0, "tags": []}]}'


def content(**asked: Any) -> Content:  # noqa: ANN401 - any field of a check
    built = Content.of(HttpCheck(**asked), replica_id=REPLICA)
    assert built is not None
    return built


def reply(body: bytes = b"", *headers: tuple[bytes, bytes]) -> Reply:
    return Reply(200, reusable=True, headers=headers, body=body)


def json_says(path: str, body: bytes, **equals: Any) -> str | None:  # noqa: ANN401 - any JSON value
    return content(json=(JsonExpectation(path=path, **equals),)).mismatch(reply(body))


def test_check_that_asks_for_a_status_alone_has_no_content() -> None:
    assert Content.of(HttpCheck(path="/x", expected_status="204"), replica_id=REPLICA) is None


@pytest.mark.parametrize(
    ("path", "places"),
    [
        ("status", ("status",)),
        ("data[0].id", ("data", 0, "id")),
        ("[2][10]", (2, 10)),
        ("a.b-c d.é", ("a", "b-c d", "é")),
        (".".join("x" * PLACES_MAX), tuple("x" * PLACES_MAX)),
    ],
)
def test_json_path_is_names_and_places(path: str, places: tuple[str | int, ...]) -> None:
    assert parse_json_path(path) == places


@pytest.mark.parametrize(
    "path",
    [
        "",
        ".",
        "a.",
        ".a",
        "a..b",
        "a.[0]",
        "a[]",
        "a[-1]",
        "a[01]",
        "a[1",
        "a]",
        "a[0]b",
        "[0]a",
        "a[9999999]",
        ".".join("x" * (PLACES_MAX + 1)),
        "a[*]",
    ],
)
def test_path_that_cannot_be_followed_is_malformed(path: str) -> None:
    with pytest.raises(MalformedEntry, match="cannot be followed"):
        parse_json_path(path)


@pytest.mark.parametrize(
    ("path", "equals"),
    [
        ("object", "list"),
        ("data[0].id", "m-1"),
        ("data[0].ready", True),
        ("data[0].queue", 0),
        ("data[0].queue", 0.0),
        ("data[0].queue", None),  # it is there: 0 is something
        ("data", None),
    ],
)
def test_json_that_holds_what_is_expected_passes(path: str, equals: object) -> None:
    assert json_says(path, MODELS, equals=equals) is None


@pytest.mark.parametrize(
    ("path", "equals", "said"),
    [
        ("object", "set", "json object: expected 'set', found 'list'"),
        ("data[1].id", None, "json data[1].id: expected something, found nothing there"),
        ("data[0].tags", None, "json data[0].tags: expected something, found []"),
        ("data[0].ready", 1, "json data[0].ready: expected 1, found true"),
        ("data[0].queue", False, "json data[0].queue: expected false, found 0"),
        ("data[0].queue", "0", "json data[0].queue: expected '0', found 0"),
        ("data.id", "m-1", "json data.id: expected 'm-1', found nothing there"),
        ("object[0]", "l", "json object[0]: expected 'l', found nothing there"),
    ],
)
def test_mismatch_names_the_place_the_expected_and_the_found(
    path: str, equals: object, said: str
) -> None:
    assert json_says(path, MODELS, equals=equals) == said


@pytest.mark.parametrize("empty", ["null", "false", "''", "[]", "{}"])
def test_without_a_value_the_place_must_hold_something(empty: str) -> None:
    body = b'{"a": %s}' % empty.replace("'", '"').encode()
    assert json_says("a", body) == f"json a: expected something, found {empty}"


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "body is not JSON (Input data was truncated): 0 bytes beginning ''"),
        (b"<html>", "body is not JSON (JSON is malformed: invalid character (byte 0)): 6 bytes"),
        (b'{"a": NaN}', "body is not JSON"),
        (b'{"a": 1} x', "body is not JSON"),
        (b'"\xff"', "body is not JSON"),
        (b"[" * BODY_MAX_BYTES, "body is not JSON that can be read: 65536 bytes nested too deeply"),
    ],
)
def test_body_that_is_not_json_is_said_to_be_none(body: bytes, why: str) -> None:
    said = json_says("a", body)
    assert said is not None
    assert said.startswith(why)


def test_body_must_contain_the_text() -> None:
    wanted = content(body_contains="größe: ok")
    assert wanted.mismatch(reply("x größe: ok y".encode())) is None
    assert wanted.mismatch(reply(b"no\x1b[31m")) == (
        r"body: expected 'gr\xf6\xdfe: ok' in it, found 7 bytes beginning 'no\x1b[31m'"
    )


def test_one_header_of_the_name_must_contain_the_text() -> None:
    wanted = content(headers={"X-Engine": "vllm"})
    assert wanted.mismatch(reply(b"", (b"x-engine", b"old"), (b"x-engine", b"my vllm"))) is None
    assert wanted.mismatch(reply(b"", (b"server", b"vllm"))) == (
        "header x-engine: expected 'vllm', found nothing"
    )
    assert wanted.mismatch(reply(b"", (b"x-engine", b"a"), (b"x-engine", b"b"))) == (
        "header x-engine: expected 'vllm', found 'a, b'"
    )


def test_encoded_body_is_not_looked_into() -> None:
    gzipped = reply(b"\x1f\x8b", (b"content-encoding", b"gzip"))
    assert content(body_contains="ok").mismatch(gzipped) == (
        "body is encoded ('gzip'), and a probe inflates nothing"
    )
    assert content(headers={"Content-Encoding": "gzip"}).mismatch(gzipped) is None


@pytest.mark.parametrize(
    "asked",
    [
        {"headers": {"X-Replica": "{replica_id}"}},
        {"body_contains": "i am {replica_id}."},
        {"json": (JsonExpectation(path="id", equals="{replica_id}"),)},
    ],
)
def test_identity_tells_this_replica_from_another_at_its_address(asked: dict[str, Any]) -> None:
    wanted = content(identity=True, **asked)

    def answer(replica_id: str) -> Reply:
        body = f'{{"id": "{replica_id}", "say": "i am {replica_id}."}}'.encode()
        return reply(body, (b"x-replica", replica_id.encode()))

    assert wanted.mismatch(answer(REPLICA)) is None
    said = wanted.mismatch(answer("another"))
    assert said is not None
    assert REPLICA in said


def test_identity_without_an_id_to_compare_is_malformed() -> None:
    with pytest.raises(MalformedEntry, match="identity needs"):
        content(identity=True, body_contains="ok")


def test_expectations_are_counted() -> None:
    many = tuple(JsonExpectation(path=f"a{n}") for n in range(EXPECTATIONS_MAX + 1))
    with pytest.raises(MalformedEntry, match="at most 32"):
        content(json=many)


def test_found_text_is_cut_and_escaped() -> None:
    assert shown("x" * 61) == "'" + "x" * 60 + "'..."
    assert shown("\x1b\u202e") == r"'\x1b\u202e'"
    assert shown({"k": "é" * 100}) == '{"k":"' + r"\xe9" * 13 + r"\x..."
    assert shown(b"\xff") == r"'\ufffd'"
