"""A deployment as a person writes it down: TOML, YAML or JSON, checked before anything happens.

Called by `deployment apply` and `revision add`. Whatever is wrong raises `InvalidInput` with the
place in the file, the value found there, and what to write instead.
"""

import json
import re
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from enum import StrEnum
from pathlib import PurePath
from typing import Annotated, Any, Final, get_args

import msgspec
import yaml

from controller.errors import InvalidInput
from controller.model import Health, HealthCheck, Policy, RevisionSpec, Strategy
from probe.errors import WireError
from probe.wire import status_set

SIZE_MAX_CHARS: Final = 1_048_576
"""A deployment file has a few hundred; a megabyte is something else."""
REPLICAS_MAX: Final = 10_000
PATH_MAX_CHARS: Final = 2048
ROLLOUT_TIMEOUT_MAX_S: Final = 30 * 86_400.0


class Syntax(StrEnum):
    """What a deployment file may be written in."""

    TOML = "toml"
    YAML = "yaml"
    JSON = "json"


class DeploymentFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A deployment and the revision it shall run."""

    name: Annotated[str, msgspec.Meta(pattern=r"\A[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\Z")]
    replicas: Annotated[int, msgspec.Meta(ge=0, le=REPLICAS_MAX)] = 1
    policy: Policy = Policy()
    cleanup_target_statuses: tuple[Health, ...] = (Health.UNHEALTHY,)
    revision: RevisionSpec
    auto_activate: bool = True


def syntax_of(filename: str) -> Syntax:
    """Return the syntax that a file's name promises.

    Raises:
        InvalidInput: if it promises none.
    """
    suffix = PurePath(filename).suffix.lower().removeprefix(".")
    match suffix:
        case "toml" | "json":
            return Syntax(suffix)
        case "yaml" | "yml":
            return Syntax.YAML
        case _:
            raise InvalidInput(
                f"{filename!r} does not say what it is written in; name it .toml, .yaml or .json"
            )


def parse(text: str, *, syntax: Syntax) -> DeploymentFile:
    """Return what `text` says.

    Raises:
        InvalidInput: if it is not of the syntax, lacks a key, has an unknown one, or holds a value
            that cannot be.
    """
    document = _load(text, syntax)
    try:
        found = msgspec.convert(document, DeploymentFile)
    except msgspec.ValidationError as error:
        raise InvalidInput(_explain(str(error), document)) from error
    return _checked(found)


def _load(text: str, syntax: Syntax) -> object:
    if len(text) > SIZE_MAX_CHARS:
        raise InvalidInput(
            f"the deployment file has {len(text)} characters; at most {SIZE_MAX_CHARS} are read"
        )
    try:
        match syntax:
            case Syntax.TOML:
                return tomllib.loads(text)
            case Syntax.YAML:
                return yaml.safe_load(text)
            case Syntax.JSON:
                return json.loads(text)
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise InvalidInput(f"the deployment file is not {syntax.upper()}: {reason}") from error


def _checked(found: DeploymentFile) -> DeploymentFile:
    """Return `found` with its path completed, when what types cannot say holds as well."""
    if Health.HEALTHY in found.cleanup_target_statuses:
        raise InvalidInput(
            "cleanup_target_statuses: 'healthy' would take out replicas that serve; write for "
            'example ["unhealthy"]'
        )
    policy = found.policy
    if policy.rollout_timeout_s > ROLLOUT_TIMEOUT_MAX_S:
        raise InvalidInput(
            f"policy.rollout_timeout_s: {policy.rollout_timeout_s:g} is more than 30 days "
            f"({ROLLOUT_TIMEOUT_MAX_S:.0f}); write a smaller one"
        )
    if policy.min_ready_s >= policy.rollout_timeout_s:
        raise InvalidInput(
            f"policy.min_ready_s: {policy.min_ready_s:g} is not below rollout_timeout_s "
            f"{policy.rollout_timeout_s:g}, so no rollout could end; write a smaller one"
        )
    check = found.revision.health_check
    if check is None:
        return found
    spec = msgspec.structs.replace(found.revision, health_check=_checked_check(check))
    return msgspec.structs.replace(found, revision=spec)


def _checked_check(check: HealthCheck) -> HealthCheck:
    where = "revision.health_check"
    path = check.path if check.path.startswith("/") else f"/{check.path}"
    if len(path) > PATH_MAX_CHARS or not all("!" <= letter <= "~" for letter in path):
        raise InvalidInput(
            f"{where}.path: {check.path[:80]!r} must be printable ASCII without spaces, at most "
            f"{PATH_MAX_CHARS} characters; encode others as %XX"
        )
    try:
        status_set(check.expected_status_code)
    except WireError as error:
        raise InvalidInput(f"{where}.expected_status_code: {error}") from error
    return msgspec.structs.replace(check, path=path)


_UNKNOWN: Final = re.compile(r"Object contains unknown field `(?P<key>.*)`", re.DOTALL)
_MISSING: Final = re.compile(r"Object missing required field `(?P<key>.*)`", re.DOTALL)
_PLACED: Final = re.compile(r"(?P<what>.*?)(?: - at `\$\.?(?P<where>.*)`)?", re.DOTALL)
_INDEX: Final = re.compile(r"\[\d+\]")
_BOUND: Final = 'write a count such as 2, or a percentage such as "50%"'
_REMEDIES: Final[Mapping[str, str]] = {
    "": "write its keys, such as name, replicas and [revision]",
    "name": "write up to 63 lower-case letters, digits and inner dashes",
    "policy.strategy": f"implemented: {', '.join(Strategy)}",
    "policy.surge": _BOUND,
    "policy.unavailable": _BOUND,
    "cleanup_target_statuses": 'write a list such as ["unhealthy"]',
    "cleanup_target_statuses[...]": f"known: {', '.join(h for h in Health if h != 'healthy')}",
    "revision.command": 'write a list such as ["server", "--port", "8000"]',
    "revision.health_check.expected_status_code": 'write it in quotes, such as "200-299"',
    "revision.environment[...]": "values are text: write them in quotes",
}


def _explain(problem: str, document: object) -> str:
    """Turn the decoder's complaint into a sentence with place, value and remedy."""
    placed = _PLACED.fullmatch(problem)
    what, where = (placed["what"], placed["where"] or "") if placed else (problem, "")
    if unknown := _UNKNOWN.fullmatch(what):
        known = _keys_at(where)
        near = get_close_matches(unknown["key"], known, n=1)
        remedy = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
        return f"{_at(where)}: unknown key {unknown['key']!r}; {remedy}"
    if missing := _MISSING.fullmatch(what):
        return f"{_at(where)}: the key {missing['key']!r} is missing; add it"
    advice = _REMEDIES.get(_INDEX.sub("[...]", where))
    plain = what[:1].lower() + what[1:].replace("`", "")
    if advice and "matching regex" in plain:
        plain = "not allowed"
    if plain.startswith("invalid enum value"):
        plain = plain.replace("invalid enum value", "there is no")
        return f"{where}: {plain}; {advice}"
    found = _value_at(where, document)
    return "; ".join(filter(None, (f"{_at(where)}: {plain}{found}", advice)))


def _at(where: str) -> str:
    return where or "the deployment file"


def _keys_at(where: str) -> list[str]:
    """Return the keys known at a place such as `revision.health_check`."""
    kind: Any = DeploymentFile
    for part in filter(None, where.split(".")):
        kinds = {field.name: field.type for field in msgspec.structs.fields(kind)}
        choices = (kinds[part], *get_args(kinds[part]))
        kind = next(c for c in choices if isinstance(c, type) and issubclass(c, msgspec.Struct))
    return [field.name for field in msgspec.structs.fields(kind)]


def _value_at(where: str, document: object) -> str:
    """Return `, found …` with the value at a place; nothing where it cannot be told."""
    found = document
    for part in where.split("."):
        if not isinstance(found, dict) or part not in found:
            return ""
        found = found[part]
    return f", found {found!r}"[:120]
