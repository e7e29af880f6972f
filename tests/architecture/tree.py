"""What the checks of the house look at: the project's root, its files, its syntax trees."""

import ast
import subprocess
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
CODE: Final = ("probe", "controller")
EVERYTHING: Final = (*CODE, "bench", "tests")


def modules(*folders: str) -> Iterator[Path]:
    """Yield the Python files of some folders, relative to the root, in order."""
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path.relative_to(ROOT)


@cache
def source(path: Path) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(source(path), filename=str(path))


def line_count(path: Path) -> int:
    return source(path).count("\n")


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Yield qualified name and number of lines of each function, decorators not counted."""
    yield from _functions(tree(path), ())


def _functions(node: ast.AST, outer: Sequence[str]) -> Iterator[tuple[str, int]]:
    for child in ast.iter_child_nodes(node):
        match child:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                assert child.end_lineno is not None
                yield ".".join((*outer, child.name)), child.end_lineno - child.lineno + 1
                yield from _functions(child, (*outer, child.name))
            case ast.ClassDef():
                yield from _functions(child, (*outer, child.name))
            case _:
                yield from _functions(child, outer)


@cache
def tracked() -> tuple[Path, ...]:
    """Return the files of the next commit, as the version control knows them."""
    listing = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True
    )
    return tuple(Path(name) for name in listing.stdout.split("\0") if (ROOT / name).is_file())
