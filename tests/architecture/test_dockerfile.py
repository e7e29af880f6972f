"""What the Dockerfile promises, as far as it can be told without a container engine."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatch
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Final, NamedTuple

import anyio
import pytest
from prometheus_client import CollectorRegistry

from probe import ops

ROOT: Final = Path(__file__).parents[2]
HADOLINT: Final = Path(sys.executable).with_name("hadolint")
TARGETS: Final = {"probe": "9155", "controller": "9156"}


class Instruction(NamedTuple):
    word: str
    rest: str


def instructions() -> Iterator[Instruction]:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    for line in re.sub(r"\\\n", " ", text).splitlines():
        if line.strip() and not line.startswith("#"):
            word, _, rest = line.partition(" ")
            yield Instruction(word, " ".join(rest.split()))


def stages() -> dict[str, tuple[str, list[Instruction]]]:
    """Return each stage's base and its instructions, by name."""
    found: dict[str, tuple[str, list[Instruction]]] = {}
    current: list[Instruction] = []
    for instruction in instructions():
        if instruction.word == "FROM":
            base, _, name = instruction.rest.split()
            current = []
            found[name] = (base, current)
        else:
            current.append(instruction)
    return found


def of_target(name: str) -> list[Instruction]:
    """Return the instructions that make the final image, those of its bases first."""
    base, own = stages()[name]
    return [*(of_target(base) if base in stages() else ()), *own]


def last(name: str, word: str) -> str:
    return [i.rest for i in of_target(name) if i.word == word][-1]


def environment(name: str) -> dict[str, str]:
    pairs = " ".join(i.rest for i in of_target(name) if i.word == "ENV").split()
    return dict(pair.split("=", 1) for pair in pairs)


def healthcheck(name: str) -> Sequence[str]:
    command: list[str] = json.loads(last(name, "HEALTHCHECK").partition(" CMD ")[2])
    return [sys.executable, *command[1:]]


def test_hadolint_has_nothing_to_say() -> None:
    done = subprocess.run(
        [HADOLINT, "--failure-threshold", "style", "Dockerfile"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_runs_its_daemon_as_nobody(target: str) -> None:
    module = json.loads(last(target, "ENTRYPOINT"))
    assert module == ["python", "-m", target]
    assert find_spec(f"{target}.__main__") is not None
    user, group = map(int, last(target, "USER").split(":"))
    assert min(user, group) > 1000
    after_user = [i.word for i in of_target(target)]
    assert "RUN" not in after_user[after_user.index("USER") :]


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_listens_where_it_says(target: str) -> None:
    port = TARGETS[target]
    assert last(target, "EXPOSE") == port
    assert environment(target)[f"FLEETPULSE_{target.upper()}__METRICS"] == f"0.0.0.0:{port}"


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_is_labelled(target: str) -> None:
    labels = " ".join(i.rest for i in of_target(target) if i.word == "LABEL")
    for key in ("title", "description", "licenses", "vendor"):
        assert f"org.opencontainers.image.{key}=" in labels


def test_the_settings_an_image_makes_are_known() -> None:
    for target in TARGETS:
        ours = {k: v for k, v in environment(target).items() if k.startswith("FLEETPULSE_")}
        given = {"FLEETPULSE_DATABASE_URL": "sqlite:///x.db"} | ours
        done = subprocess.run(
            [sys.executable, "-m", target, "--check-config"],
            cwd=ROOT,
            env={"PATH": os.environ["PATH"]} | given,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert f'metrics = "0.0.0.0:{TARGETS[target]}"  # environment' in done.stdout


def test_what_is_installed_is_what_the_locks_name() -> None:
    runs = " ".join(i.rest for i in instructions() if i.word == "RUN")
    installs = [step for step in re.split(r"&&", runs) if " install " in step]
    assert installs
    for step in installs:
        of_lock = "--require-hashes" in step and "requirements/" in step
        of_ours = "--no-deps" in step and "dist/" in step
        assert of_lock or of_ours, step


def test_no_registry_and_no_index_is_named() -> None:
    """Base images come by name alone, so that any mirror serves them."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert "://" not in text
    assert {base for base, _ in stages().values()} - set(stages()) == {
        "python:${PYTHON}-slim-bookworm"
    }
    assert "\nARG PYTHON=3." in text


def test_the_context_holds_what_is_copied_and_nothing_else() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    let_in = {rule[1:] for rule in rules if rule.startswith("!")}
    kept_out = [rule for rule in rules[1:] if not rule.startswith("!")]
    copied = {
        source
        for i in instructions()
        if i.word == "COPY" and not i.rest.startswith("--from")
        for source in i.rest.split()[:-1]
    }
    assert copied == let_in
    assert all((ROOT / source).exists() for source in copied)
    assert any(fnmatch("probe/__pycache__", rule) for rule in kept_out)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    ("trouble", "code"), [(None, 0), ("the loop is late", 1)], ids=["live", "stuck"]
)
async def test_the_healthcheck_asks_the_daemon(target: str, trouble: str | None, code: int) -> None:
    """The very command of the Dockerfile, against the very server of the daemons."""
    listener = await ops.bind("127.0.0.1", 0)
    pages = ops.Pages(CollectorRegistry(), live=lambda: trouble, ready=lambda: None)
    async with anyio.create_task_group() as group:
        group.start_soon(ops.serve, listener, pages)
        assert await check(target, ops.address_of(listener)) == code
        group.cancel_scope.cancel()


@pytest.mark.parametrize("target", TARGETS)
async def test_the_healthcheck_fails_when_nobody_answers(target: str) -> None:
    listener = await ops.bind("127.0.0.1", 0)
    address = ops.address_of(listener)
    await listener.aclose()
    assert await check(target, address) != 0


async def check(target: str, address: str) -> int:
    variable: Mapping[str, str] = {f"FLEETPULSE_{target.upper()}__METRICS": address}
    run = partial(anyio.run_process, healthcheck(target), env=variable, check=False)
    with anyio.fail_after(10):
        return (await run()).returncode
