"""The page of commands tells of every command and option, and of none that is not there."""

import re
from collections.abc import Iterator
from functools import cache

import click
import pytest

from controller.cli import COMMANDS, main
from tests.architecture.tree import ROOT

PAGE = ROOT / "docs" / "commands.md"
OF_ALL = {"--help", "--version"}
"""Told once, above the commands."""


def leaves(path: tuple[str, ...], command: click.Command) -> Iterator[tuple[str, click.Command]]:
    if not isinstance(command, click.Group):
        yield " ".join(path), command
        return
    for name, below in command.commands.items():
        yield from leaves((*path, name), below)


@cache
def known() -> dict[str, click.Command]:
    """Return every command that does something, by what is typed."""
    context = click.Context(main)
    found: dict[str, click.Command] = {}
    for name in COMMANDS:
        command = main.get_command(context, name)
        assert command is not None
        found.update(leaves((name,), command))
    return found


@cache
def sections() -> dict[str, str]:
    """Return the page by its headings."""
    _, *parts = re.split(r"^## (.+)\n", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2], strict=True))


def options(command: click.Command) -> set[str]:
    return {
        name
        for each in command.params
        if isinstance(each, click.Option)
        for name in (*each.opts, *each.secondary_opts)
    }


def test_every_command_has_its_section_in_the_order_of_help() -> None:
    assert set(sections()) == set(known())
    first_words = list(dict.fromkeys(name.split()[0] for name in sections()))
    assert first_words == list(COMMANDS)


@pytest.mark.parametrize("name", known())
def test_a_section_tells_each_option_that_help_shows(name: str) -> None:
    rows = [line for line in sections()[name].splitlines() if line.startswith("| `-")]
    told = {each for row in rows for each in re.findall(r"`(--?[a-z][\w-]*)", row.split(" | ")[0])}
    assert told == options(known()[name])


@pytest.mark.parametrize("name", known())
def test_a_section_has_usage_exit_codes_and_an_example(name: str) -> None:
    text = sections()[name]
    command = known()[name]
    pieces = command.collect_usage_pieces(click.Context(command, info_name=name))
    assert f"`fleetpulse {name} {' '.join(pieces)}`" in text
    assert re.search(r"^Exit codes: 0: ", text, re.MULTILINE)
    assert re.search(rf"^```console\n\$ fleetpulse {name}\b", text, re.MULTILINE)


def test_an_option_in_an_example_is_one_that_the_command_has() -> None:
    wrong = []
    for name in known():
        for line in re.findall(rf"^\$ fleetpulse {name}\b(.*)", sections()[name], re.MULTILINE):
            used = set(re.findall(r"(?<=\s)--?[a-z][\w-]*", line))
            wrong += [f"{name}: {each}" for each in used - options(known()[name]) - OF_ALL]
    assert wrong == []
