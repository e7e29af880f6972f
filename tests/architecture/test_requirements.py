"""Every requirement has a test that names it, and every name is a requirement."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cache

from tests.architecture.requirement_ids import REQUIREMENTS
from tests.architecture.tree import modules, tree

ID = re.compile(r"\bR-\d\d[a-z]?\b")


def named(node: ast.AST, around: frozenset[str]) -> Iterator[tuple[str, str]]:
    """Yield (id, test) for the ids in a test's docstring, its class's, or its module's."""
    for child in ast.iter_child_nodes(node):
        match child:
            case ast.ClassDef():
                yield from named(child, around | ids_of(child))
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                if name.startswith("test_"):
                    for each in around | ids_of(child):
                        yield each, name


def ids_of(
    node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef,
) -> frozenset[str]:
    return frozenset(ID.findall(ast.get_docstring(node) or ""))


@cache
def holders() -> Mapping[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for path in modules("tests"):
        if path.name.startswith("test_"):
            for each, name in named(tree(path), ids_of(tree(path))):
                found[each].append(f"{path}::{name}")
    return found


def test_every_requirement_has_a_test() -> None:
    missing = [f"{each.id}: {each.says}" for each in REQUIREMENTS if each.id not in holders()]
    assert missing == []


def test_every_requirement_that_is_named_exists() -> None:
    known = {each.id for each in REQUIREMENTS}
    unknown = {
        f"{path}: {each}"
        for path in modules("probe", "controller", "bench", "tests")
        for docstring in docstrings(tree(path))
        for each in ID.findall(docstring)
        if each not in known
    }
    assert unknown == set()


def docstrings(module: ast.Module) -> Iterator[str]:
    for node in ast.walk(module):
        match node:
            case ast.Module() | ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                yield ast.get_docstring(node) or ""
            case _:
                pass


def test_the_list_is_whole_and_names_each_once() -> None:
    ids = [each.id for each in REQUIREMENTS]
    numbered = {f"R-{number:02}" for number in range(1, 68)}
    assert sorted(ids) == sorted(numbered | {"R-20c", "R-20d", "R-20e"})
