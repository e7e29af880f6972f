"""One layer of a definition: what somebody says of it, and what he leaves to the layers below.

A key that is absent is UNSET and keeps what lies below; null clears it. Bounds are those of the
finished definition, checked here, where it is still known who wrote the value.
"""

from collections.abc import Mapping
from typing import Annotated, Final

import msgspec
from msgspec import UNSET, UnsetType

from controller.definition.explain import explain
from controller.errors import InvalidInput
from controller.model_definition import Grace, Interval, ModelMetadata, Port, Times, WaitTime

MODELS_MAX: Final = 64
ARGUMENTS_MAX: Final = 1024
NAME_MAX_CHARS: Final = 256
PATH_MAX_CHARS: Final = 4096

_Argument = Annotated[str, msgspec.Meta(max_length=32_768)]
_Arguments = Annotated[tuple[_Argument, ...], msgspec.Meta(min_length=1, max_length=ARGUMENTS_MAX)]
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=NAME_MAX_CHARS)]
ModelPath = Annotated[
    str, msgspec.Meta(min_length=1, max_length=PATH_MAX_CHARS, pattern=r"\A[^\x00-\x1f\x7f]*\Z")
]
Codes = int | str | tuple[int | str, ...]


class HealthCheckLayer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a replica is asked, as far as this layer says."""

    path: str | UnsetType | None = UNSET
    interval: Interval | UnsetType | None = UNSET
    max_wait_time: WaitTime | UnsetType | None = UNSET
    expected_status_code: Codes | UnsetType | None = UNSET
    """A code, a text such as "200-299,304", or a list of both."""
    max_retries: Times | UnsetType | None = UNSET
    healthy_threshold: Times | UnsetType | None = UNSET
    initial_delay: Grace | UnsetType | None = UNSET


class ServiceLayer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What serves a model, as far as this layer says."""

    start_command: _Argument | _Arguments | UnsetType | None = UNSET
    """A list is taken as it is, text is split as a shell would; no shell ever reads it."""
    port: Port | UnsetType | None = UNSET
    health_check: HealthCheckLayer | UnsetType | None = UNSET


class MetadataLayer(ModelMetadata, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What people say of a model, as far as this layer says."""


class ModelLayer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One model, as far as this layer says."""

    name: _Name | UnsetType | None = UNSET
    model_path: ModelPath | UnsetType | None = UNSET
    service: ServiceLayer | UnsetType | None = UNSET
    metadata: MetadataLayer | UnsetType | None = UNSET


_Models = Annotated[tuple[ModelLayer, ...], msgspec.Meta(max_length=MODELS_MAX)]


class DefinitionLayer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A definition, as far as this layer says; models are told apart by their place in the list."""

    models: _Models | UnsetType | None = UNSET


REMEDIES: Final[Mapping[str, str]] = {
    "models": 'write a list of models, such as [{"service": {"port": 8000}}]',
    "models[...].service.start_command": 'write a list such as ["server", "--port", "8000"]',
    "models[...].service.health_check.expected_status_code": 'write 200, "200-299" or a list',
    "pre_start_actions": "nothing is run before the command; do it in the image, or in the command",
    "shell": 'no shell reads the command; one that needs it is ["sh", "-c", "..."]',
}
"""What to write instead, by place; by name for keys that other systems know."""


def layer_from(document: object, *, what: str) -> DefinitionLayer:
    """Return what `document` says of a definition; `what` names it in the errors.

    Raises:
        InvalidInput: if it has an unknown key, or a value that cannot be.
    """
    try:
        return msgspec.convert(document, DefinitionLayer)
    except msgspec.ValidationError as error:
        said = explain(
            str(error), document, kind=DefinitionLayer, what="the document", remedies=REMEDIES
        )
        raise InvalidInput(f"{what}: {said}") from error
