"""Compiles the two C programs of the bench; nothing compiled is ever kept in the project."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

_SOURCES = Path(__file__).parent / "floor"
_FLAGS = ("-O2", "-std=gnu11", "-Wall", "-Wextra", "-Werror")
_TIMEOUT_S = 60


class CannotBuild(Exception):  # noqa: N818 - reads as what it is
    """There is no floor to stand on; its text is the reason to skip."""


@dataclass(frozen=True, slots=True)
class Programs:
    """Where the compiled programs are."""

    farm: Path
    floor: Path


def missing() -> str | None:
    """Tell why the programs cannot be built here; None when they can."""
    if sys.platform != "linux":
        return f"the C floor needs epoll, which {sys.platform} does not have"
    if _compiler() is None:
        return "the C floor needs a C compiler: no cc on PATH, and CC is not set"
    return None


def build(directory: Path) -> Programs:
    """Compile into `directory`; takes about half a second.

    Raises:
        CannotBuild: if there is no compiler, or it refuses.
    """
    compiler = _compiler()
    reason = missing()
    if compiler is None or reason is not None:
        raise CannotBuild(reason)
    return Programs(
        farm=_compile(compiler, "farm", directory), floor=_compile(compiler, "floor", directory)
    )


def _compiler() -> str | None:
    return shutil.which(os.environ.get("CC") or "cc")


def _compile(compiler: str, name: str, directory: Path) -> Path:
    program = directory / name
    done = subprocess.run(
        [compiler, *_FLAGS, "-o", str(program), str(_SOURCES / f"{name}.c")],
        capture_output=True,
        check=False,
        text=True,
        timeout=_TIMEOUT_S,
    )
    if done.returncode != 0:
        raise CannotBuild(f"{compiler} does not compile {name}.c: {done.stderr.strip()}")
    return program
