"""The project's own measures: sizes, docstrings, locks, and what no file may say."""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from controller.cli import COMMANDS
from tests.architecture.tree import (
    CODE,
    EVERYTHING,
    ROOT,
    functions,
    line_count,
    modules,
    source,
    tracked,
    tree,
)

SOFT_LINES: Final = 250
HARD_LINES: Final = 400
FUNCTION_LINES: Final = 40
DOCSTRING_LINES: Final = 12

LONG_FUNCTIONS: Final = {
    "controller/metrics.py:ControllerMetrics.__init__": "the list of instruments, one by one",
}
"""Those above the limit that splitting would only scatter, and why."""

UNSAID: Final = (
    r"(?<![\w.~}])/(?:work|root)/",  # paths of one machine
    r"(?<![\w.~}])/home/\w",
    r"\bissue [A-D]\b",  # the order in which things were built
    r"\bdesign page",
    r"\bTODO\b",  # a plan belongs in the tracker, a lack in the documentation
    r"\bFIXME\b",
    r"\bNotImplementedError\b",
    r"-----BEGIN (?:RSA |EC |OPENSSH )?PRIVATE KEY",
)
"""What no file of the project says, this one apart."""


def test_no_file_is_longer_than_the_hard_limit() -> None:
    too_long = {
        str(path): line_count(path)
        for path in modules(*EVERYTHING, "docs")
        if line_count(path) > HARD_LINES
    }
    assert not too_long


def test_the_files_above_the_soft_limit_are_few() -> None:
    paths = list(modules(*CODE, "bench"))
    above = {str(path): line_count(path) for path in paths if line_count(path) > SOFT_LINES}
    for path, lines in above.items():
        print(f"{path}: {lines} lines, above {SOFT_LINES}")  # noqa: T201 - shown by -rP
    assert len(above) <= len(paths) // 10


def long_functions() -> dict[str, int]:
    return {
        f"{path}:{name}": lines
        for path in modules(*CODE)
        for name, lines in functions(path)
        if lines > FUNCTION_LINES
    }


def test_functions_are_short_but_for_the_ones_named() -> None:
    found = long_functions()
    assert {name: found[name] for name in found.keys() - LONG_FUNCTIONS.keys()} == {}


def test_the_named_exceptions_are_still_needed() -> None:
    assert LONG_FUNCTIONS.keys() - long_functions().keys() == set()


def test_every_module_says_what_it_is_in_few_lines() -> None:
    amiss = []
    for path in modules(*EVERYTHING):
        docstring = ast.get_docstring(tree(path)) or ""
        lines = sum(bool(line.strip()) for line in docstring.splitlines())
        if source(path).strip() and not 1 <= lines <= DOCSTRING_LINES:
            amiss.append(f"{path}: {lines} lines of docstring")
    assert amiss == []


def locked(lock: Path) -> Iterator[tuple[str, int]]:
    """Yield each requirement of a lock and how many hashes it has."""
    requirement, hashes = "", 0
    for line in lock.read_text().splitlines():
        if re.match(r"[A-Za-z0-9]", line):
            if requirement:
                yield requirement, hashes
            requirement, hashes = line.split()[0], 0
        else:
            hashes += line.strip().startswith("--hash=sha256:")
    yield requirement, hashes


@pytest.mark.parametrize(
    "lock", sorted((ROOT / "requirements").glob("*.lock")), ids=lambda p: p.name
)
def test_a_lock_pins_by_hash_and_names_no_address(lock: Path) -> None:
    assert "://" not in lock.read_text()
    requirements = dict(locked(lock))
    assert requirements
    assert [name for name in requirements if "==" not in name] == []
    assert [name for name, hashes in requirements.items() if not hashes] == []


def test_the_locks_cover_what_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = [*project["dependencies"]]
    for extra in project["optional-dependencies"].values():
        declared += extra
    names = {re.split(r"[\[<>=!~; ]", each)[0].lower() for each in declared}
    pinned = {
        re.split(r"==|\[", name)[0].lower() for name, _ in locked(ROOT / "requirements/run.lock")
    }
    assert names - pinned == set()


def test_no_file_speaks_of_the_workshop() -> None:
    unsaid = re.compile("|".join(UNSAID))
    here = Path(__file__).relative_to(ROOT)
    found = []
    for path in tracked():
        text = (ROOT / path).read_bytes().decode("utf-8", errors="replace")
        if path != here and (match := unsaid.search(text)):
            found.append(f"{path}:{text.count(chr(10), 0, match.start()) + 1}: {match.group()}")
    assert found == []


def commands(program: str) -> Iterator[tuple[Path, str]]:
    """Yield each document with the first argument of each `program` in its code, not its prose."""
    for path in tracked():
        if path.suffix == ".md":
            code = re.findall(
                r"^```[^\n]*\n(.*?)^```|`([^`\n]+)`", source(path), re.DOTALL | re.MULTILINE
            )
            for block, span in code:
                for line in (block or span).splitlines():
                    if told := re.match(rf"\s*(?:\$ )?{program} ([a-z][\w-]*)", line):
                        yield path, told[1]


def test_every_make_target_in_the_documents_exists() -> None:
    targets = re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert [told for told in commands("make") if told[1] not in targets] == []


def test_every_command_in_the_documents_exists() -> None:
    assert [told for told in commands("fleetpulse") if told[1] not in COMMANDS] == []


def test_the_version_is_the_newest_release_of_the_changelog() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    heads = re.findall(r"^## \[([^\]]+)\]", source(Path("CHANGELOG.md")), re.MULTILINE)
    assert next(head for head in heads if head != "Unreleased") == version
