"""Secrets by reference: a bus writer reaches nothing but what is meant to be reached."""

import copy
import json
import os
import pickle
from pathlib import Path

import msgspec
import pytest
import structlog

from probe.errors import UnsupportedCheck
from probe.references import MASK, SECRET_MAX_BYTES, References, Secret

CANARY = "c4n4ry-8f2e"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    secrets = tmp_path / "secrets"
    (secrets / "team").mkdir(parents=True)
    (secrets / "token").write_text(f"{CANARY}\n", encoding="utf-8")
    (secrets / "team" / "key.txt").write_text(CANARY, encoding="utf-8")
    (tmp_path / "outside").write_text("outside", encoding="utf-8")
    return secrets


@pytest.fixture
def references(directory: Path) -> References:
    environ = {
        "FLEETPULSE_SECRET_TOKEN": CANARY,
        "FLEETPULSE_REDIS_URL": "redis://:bus@bus",
        "AWS_SECRET_ACCESS_KEY": "cloud",
        "FLEETPULSE_SECRET_EMPTY": "",
    }
    return References(directory, environ)


@pytest.mark.parametrize(
    "reference", ["file:token", "file:team/key.txt", "env:FLEETPULSE_SECRET_TOKEN"]
)
def test_reference_is_read(references: References, reference: str) -> None:
    assert references.value(reference).reveal() == CANARY


@pytest.mark.parametrize(
    "reference",
    [
        "env:FLEETPULSE_REDIS_URL",
        "env:AWS_SECRET_ACCESS_KEY",
        "env:FLEETPULSE_SECRET_",
        "env:fleetpulse_secret_token",
        "env:FLEETPULSE_SECRET_TOKEN\n",
        "env:FLEETPULSE_SECRET_TOKEN=",
        "env:",
        "ENV:FLEETPULSE_SECRET_TOKEN",
        "file:",
        "file:.",
        "file:..",
        "file:../outside",
        "file:team/../../outside",
        "file:team/../token",
        "file:./token",
        "file:team//key.txt",
        "file:/etc/passwd",
        "file:///etc/passwd",
        "file:~/token",
        "file:.hidden",
        "file:team/.hidden",
        "file:token\x00",
        "file:token\n",
        "file:%2e%2e/outside",
        "file:..\\outside",
        "file:team",
        "file:a/b/c/d/e/f/g/h/i",
        "http:token",
        "token",
        "",
        ":",
        CANARY,
    ],
)
def test_nothing_else_is(references: References, reference: str) -> None:
    with pytest.raises(UnsupportedCheck) as refused:
        references.value(reference)
    assert CANARY not in str(refused.value)
    assert "outside" not in str(refused.value)


@pytest.mark.parametrize("reference", ["file:absent", "env:FLEETPULSE_SECRET_ABSENT"])
def test_what_is_absent_is_named(references: References, reference: str) -> None:
    with pytest.raises(UnsupportedCheck, match=f"{reference}"):
        references.value(reference)


def test_link_out_of_the_directory_is_refused(references: References, directory: Path) -> None:
    (directory / "way-out").symlink_to(directory.parent / "outside")
    (directory / "up").symlink_to(directory.parent)
    for name in ("way-out", "up/outside"):
        with pytest.raises(UnsupportedCheck, match="leads out of its directory"):
            references.value(f"file:{name}")


def test_link_inside_is_followed_because_mounts_rotate_by_links(
    references: References, directory: Path
) -> None:
    (directory / "..2024").mkdir()
    (directory / "..2024" / "api").write_text(CANARY, encoding="utf-8")
    (directory / "..data").symlink_to("..2024")
    (directory / "api").symlink_to("..data/api")
    assert references.value("file:api").reveal() == CANARY


def test_only_regular_files_of_bounded_size_are_read(
    references: References, directory: Path
) -> None:
    os.mkfifo(directory / "pipe")
    (directory / "long").write_bytes(b"x" * (SECRET_MAX_BYTES + 1))
    (directory / "binary").write_bytes(b"\xff" + CANARY.encode())
    (directory / "empty").write_bytes(b"\n")
    for name, what in (
        ("pipe", "not a regular file"),
        ("long", "longer than"),
        ("binary", "not UTF-8"),
        ("empty", "is empty"),
    ):
        with pytest.raises(UnsupportedCheck, match=what) as refused:
            references.value(f"file:{name}")
        assert CANARY not in str(refused.value)
        assert refused.value.__cause__ is None


def test_rotated_secret_is_the_new_one(references: References, directory: Path) -> None:
    assert references.value("file:token").reveal() == CANARY
    (directory / "token").write_text("rotated", encoding="utf-8")
    assert references.value("file:token").reveal() == "rotated"


def test_prober_without_a_directory_has_no_files() -> None:
    with pytest.raises(UnsupportedCheck, match="secrets_directory is not set"):
        References(None, {}).value("file:token")


def test_secret_never_shows_itself() -> None:
    secret = Secret(CANARY)
    shown = [
        str(secret),
        repr(secret),
        f"{secret}",
        f"{secret!s:>20}",
        "%s %r" % (secret, secret),  # noqa: UP031 - one of the ways things get printed
        json.dumps({"a": secret}, default=str),
        repr({"a": [secret]}),
        repr(pickle.dumps(secret)),
        str(copy.copy(secret).reveal()),
        structlog.processors.KeyValueRenderer()(None, "", {"secret": secret}),
        str(msgspec.to_builtins({"a": 1}) | {"b": secret}),
    ]
    assert not [text for text in shown if CANARY in text]
    assert MASK in shown[0]
    assert not hasattr(secret, "__dict__")
    assert CANARY not in repr(References(None, {"FLEETPULSE_SECRET_A": CANARY}))
