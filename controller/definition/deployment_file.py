"""A deployment as a person writes it down: TOML, YAML or JSON, checked before anything happens.

Called by `deployment apply` and `revision add`. Whatever is wrong raises `InvalidInput` with the
place in the file, the value found there, and what to write instead.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec

from controller.definition import layers
from controller.definition.document import SIZE_MAX_CHARS, Syntax, load, syntax_of
from controller.definition.explain import explain
from controller.definition.request import RevisionRequest, checked
from controller.definition.variants import RuntimeVariant
from controller.errors import InvalidInput
from controller.model import Health, Policy

__all__ = [
    "REPLICAS_MAX",
    "SIZE_MAX_CHARS",
    "DeploymentFile",
    "Syntax",
    "parse",
    "syntax_of",
]

REPLICAS_MAX: Final = 10_000
ROLLOUT_TIMEOUT_MAX_S: Final = 30 * 86_400.0
WHAT: Final = "the deployment file"
_OVERRIDE: Final = "revision.definition"


class DeploymentFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A deployment and the revision it shall run."""

    name: Annotated[str, msgspec.Meta(pattern=r"\A[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\Z")]
    replicas: Annotated[int, msgspec.Meta(ge=0, le=REPLICAS_MAX)] = 1
    policy: Policy = Policy()
    cleanup_target_statuses: tuple[Health, ...] = (Health.UNHEALTHY,)
    revision: RevisionRequest
    auto_activate: bool = True


def parse(text: str, *, syntax: Syntax) -> DeploymentFile:
    """Return what `text` says.

    Raises:
        InvalidInput: if it is not of the syntax, lacks a key, has an unknown one or one twice, or
            holds a value that cannot be.
    """
    document = _with_codes_as_text(load(text, syntax=syntax, what=WHAT))
    try:
        found = msgspec.convert(document, DeploymentFile)
    except msgspec.ValidationError as error:
        raise InvalidInput(_said(error, document)) from error
    return _checked(found)


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
    try:
        return msgspec.structs.replace(found, revision=checked(found.revision))
    except InvalidInput as error:
        raise InvalidInput(f"revision.{error}") from error


def _with_codes_as_text(document: Any) -> object:  # noqa: ANN401 - what a loader returns
    """Return `document` with the status codes of a plain health check as text, however written."""
    match document:
        case {"revision": {"health_check": {"expected_status_code": codes} as check} as revision}:
            words = codes if isinstance(codes, list) else [codes]
            if isinstance(codes, str) or not all(isinstance(word, int | str) for word in words):
                return document
            said = {"expected_status_code": ",".join(map(str, words))}
            return {**document, "revision": {**revision, "health_check": {**check, **said}}}
        case _:
            return document


_BOUND: Final = 'write a count such as 2, or a percentage such as "50%"'
_REMEDIES: Final[Mapping[str, str]] = {
    "": "write its keys, such as name, replicas and [revision]",
    "name": "write up to 63 lower-case letters, digits and inner dashes",
    "policy.surge": _BOUND,
    "policy.unavailable": _BOUND,
    "cleanup_target_statuses": 'write a list such as ["unhealthy"]',
    "cleanup_target_statuses[...]": f"known: {', '.join(h for h in Health if h != 'healthy')}",
    "revision.command": 'write a list such as ["server", "--port", "8000"]',
    "revision.health_check.expected_status_code": 'write 200, "200-299" or a list of such',
    "revision.environment[...]": "values are text: write them in quotes",
    "revision.variant": f"known: {', '.join(RuntimeVariant)}",
} | {
    (f"{_OVERRIDE}.{place}" if "models" in place else place): remedy
    for place, remedy in layers.REMEDIES.items()
}


def _said(error: msgspec.ValidationError, document: object) -> str:
    """Return what is wrong in a sentence; what the override says is called by that name, too."""
    said = explain(str(error), document, kind=DeploymentFile, what=WHAT, remedies=_REMEDIES)
    return f"the override: {said}" if said.startswith(_OVERRIDE) else said
