"""What a person asks a revision to be: plainly, or by a runtime variant with its model.

Read from the `revision` of a deployment file, and from the API. One of two ways and never both:
`command`, `port` and `health_check` say it plainly; `variant` brings them, and `definition` says
what shall be otherwise. `image`, `environment` and `external` go with either.
"""

from dataclasses import dataclass
from typing import Final

import msgspec

from controller.definition.health_check import health_check_of, probe_path, status_text
from controller.definition.layers import DefinitionLayer, ModelPath
from controller.definition.resolve import resolve
from controller.definition.variants import RuntimeVariant
from controller.errors import InvalidInput
from controller.model import HealthCheck, Revision, RevisionSpec
from controller.model_definition import ModelDefinition, ModelService, Port

_SERVICE: Final = "definition.models[0].service"
_BY_VARIANT: Final = {
    "command": f"{_SERVICE}.start_command",
    "port": f"{_SERVICE}.port",
    "health_check": f"{_SERVICE}.health_check",
}
"""What a variant brings, and where it is said to be otherwise."""
_ONLY_WITH_VARIANT: Final = ("model_path", "model_folder", "definition")


class RevisionRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one replica shall run."""

    command: tuple[str, ...] = ()
    image: str = ""
    environment: dict[str, str] = msgspec.field(default_factory=dict)
    port: Port | None = None
    health_check: HealthCheck | None = None
    external: bool = False
    variant: RuntimeVariant | None = None
    model_path: ModelPath | None = None
    """Where the replica finds the model; the model_folder where nothing else is said."""
    model_folder: ModelPath | None = None
    """Where the definition file is, on the machine that adds the revision."""
    definition: DefinitionLayer | None = None
    """What shall be otherwise than variant and file say: the highest layer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """What a revision is added with."""

    spec: RevisionSpec
    definition: ModelDefinition | None
    """None where the revision was asked for plainly."""

    def is_like(self, known: Revision) -> bool:
        """Tell whether `known` is what this comes to, whichever layer each value is from."""
        mine, its = self.definition, known.definition
        return self.spec == known.spec and (mine and mine.models) == (its and its.models)


def checked(asked: RevisionRequest) -> RevisionRequest:
    """Return `asked` with its path completed, when what types cannot say holds as well.

    Raises:
        InvalidInput: if the two ways are mixed, no program can be given the command or the
            environment, or the health check cannot be asked.
    """
    _passable(asked)
    written = [name for name in _BY_VARIANT if getattr(asked, name)]
    if asked.variant is not None and written:
        raise InvalidInput(
            f"{written[0]}: the variant {asked.variant.value!r} brings it; write "
            f"{_BY_VARIANT[written[0]]} to have another one"
        )
    idle = [name for name in _ONLY_WITH_VARIANT if getattr(asked, name) is not None]
    if asked.variant is None and idle:
        raise InvalidInput(
            f"{idle[0]}: it says nothing without a variant; add one, such as "
            f"variant = {RuntimeVariant.CUSTOM.value!r}"
        )
    if asked.health_check is None:
        return asked
    return msgspec.structs.replace(asked, health_check=_checked_check(asked.health_check))


def _passable(asked: RevisionRequest) -> None:
    no_program = "holds a NUL, which no program can be given; leave it out"
    for number, word in enumerate(asked.command):
        if "\0" in word:
            raise InvalidInput(f"command[{number}]: {word[:80]!r} {no_program}")
    for name, value in asked.environment.items():
        if not name or not {"=", "\0"}.isdisjoint(name):
            raise InvalidInput(
                f"environment: {name[:80]!r} is no name of a variable; write one without = in it"
            )
        if "\0" in value:  # which may be a secret
            raise InvalidInput(f"environment.{name}: it {no_program}")


def _checked_check(check: HealthCheck) -> HealthCheck:
    where = "health_check"
    try:
        where = "health_check.path"
        path = probe_path(check.path)
        where = "health_check.expected_status_code"
        status_text(check.expected_status_code)
    except InvalidInput as error:
        raise InvalidInput(f"{where}: {error}") from error
    return msgspec.structs.replace(check, path=path)


def resolved(
    asked: RevisionRequest, *, file_layer: DefinitionLayer | None, folder: str | None
) -> Resolved:
    """Return what `asked` comes to; `folder` is its model folder, as the replica would name it.

    Raises:
        InvalidInput: as `checked` and `resolve` do.
    """
    asked = checked(asked)
    if asked.variant is None:
        spec = RevisionSpec(
            command=asked.command,
            image=asked.image,
            environment=asked.environment,
            port=asked.port,
            health_check=asked.health_check,
            external=asked.external,
        )
        return Resolved(spec=spec, definition=None)
    definition = resolve(
        asked.variant,
        file_layer=file_layer,
        override=asked.definition,
        model_path=asked.model_path or folder,
    )
    served = definition.served or ModelService()
    check = served.health_check
    spec = RevisionSpec(
        command=served.start_command or (),
        image=asked.image,
        environment=asked.environment,
        port=served.port,
        health_check=None if check is None else health_check_of(check),
        external=asked.external,
    )
    return Resolved(spec=spec, definition=definition)
