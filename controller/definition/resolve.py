"""What a revision's definition comes to, once: variant, definition file and override in layers.

Called when a revision is added, before its row is written; provisioning reads what came of it and
never comes here. Pure: the file arrives as the layer that was read from it, or as None.
"""

import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import reduce
from typing import Any, Final, NoReturn, TypeVar

import msgspec
from msgspec import UNSET

from controller.definition.health_check import probe_path, status_text
from controller.definition.layers import (
    DefinitionLayer,
    HealthCheckLayer,
    MetadataLayer,
    ModelLayer,
    ServiceLayer,
)
from controller.definition.merge import Path, merge, source_of, text_of
from controller.definition.variants import MODEL_PATH, RuntimeVariant, generated, patient
from controller.errors import InvalidInput
from controller.model_definition import (
    Model,
    ModelDefinition,
    ModelHealthCheck,
    ModelMetadata,
    ModelService,
    Source,
)

FILE_NAMES: Final = tuple(f"model-definition.{end}" for end in ("yaml", "yml", "json", "toml"))
"""What a definition file may be called."""
COMMAND_MAX_CHARS: Final = 1_048_576
"""Linux passes 2 MiB to a program, the environment included."""
_OPERATORS: Final = frozenset({"&&", "||", "|", ";", "&", ">", ">>", "<", "2>&1"})

_T = TypeVar("_T")


def resolve(
    variant: RuntimeVariant,
    *,
    file_layer: DefinitionLayer | None,
    override: DefinitionLayer | None,
    model_path: str | None,
) -> ModelDefinition:
    """Return the definition that the layers come to, lowest first: variant, file, override.

    `file_layer` is None where there is no file, or none is asked for. `model_path` is that of
    every model that no layer gives one.

    Raises:
        InvalidInput: if the layers come to nothing that can be served; names layer, field, reason.
    """
    layers = [(Source.VARIANT, _lowest(variant, file_layer))]
    layers += [(Source.FILE, file_layer)] if file_layer is not None else []
    layers += [(Source.OVERRIDE, override)] if override is not None else []
    stack = _Stack(variant, tuple(layers), model_path)
    found = stack.definition()
    return msgspec.structs.replace(found, sources=dict(stack.sources(found)))


def values_of(definition: ModelDefinition) -> Iterator[tuple[str, Source, object]]:
    """Yield each value of a definition with its place and the layer that it is from."""
    for path, value in _leaves(definition.models, ("models",)):
        place = text_of(path)
        if place in definition.sources:
            yield place, definition.sources[place], value


def _lowest(variant: RuntimeVariant, file_layer: DefinitionLayer | None) -> DefinitionLayer:
    if variant is not RuntimeVariant.CUSTOM:
        return generated(variant)
    if file_layer is None:
        raise InvalidInput(
            "the variant 'custom' takes everything from the definition file, and there is none; "
            f"name a model_folder with one of {', '.join(FILE_NAMES)}"
        )
    return patient(file_layer)


@dataclass(frozen=True, slots=True)
class _Stack:
    """The layers, lowest first, and how they are read from above."""

    variant: RuntimeVariant
    layers: tuple[tuple[Source, DefinitionLayer], ...]
    model_path: str | None

    def definition(self) -> ModelDefinition:
        merged = reduce(merge, (layer for _, layer in self.layers))
        if not isinstance(merged.models, tuple) or not merged.models:
            self.refuse(("models",), "no model is left; a definition needs one")
        models = tuple(self._model(each, n) for n, each in enumerate(merged.models))
        if not any(model.service for model in models):
            self.refuse(("models", 0, "service"), "no model has one, so nothing can run; write it")
        return ModelDefinition(models=models, variant=self.variant.value)

    def sources(self, found: ModelDefinition) -> Iterator[tuple[str, Source]]:
        """Yield where each value of the definition is from, by its place."""
        for path, value in _leaves(found.models, ("models",)):
            source = source_of(path, self.layers)
            if path[-1] == "model_path" and source is Source.DEFAULT and value is not None:
                source = Source.REVISION
            if value is not None or source is not Source.DEFAULT:
                yield text_of(path), source

    def refuse(self, path: Path, reason: str) -> NoReturn:
        """Raise what is wrong at `path`, with the layer that wrote it."""
        raise InvalidInput(f"{self._layer(path)}: {text_of(path)}: {reason}")

    def _layer(self, path: Path) -> str:
        match source_of(path, self.layers):
            case Source.FILE:
                return "the definition file"
            case Source.OVERRIDE:
                return "the override"
            case _:
                return f"the variant {self.variant.value!r}"

    def _model(self, merged: ModelLayer, number: int) -> Model:
        path: Path = ("models", number)
        if not isinstance(merged.name, str):
            self._missing((*path, "name"))
        model_path = self.model_path if merged.model_path is UNSET else merged.model_path
        service = None
        if isinstance(merged.service, ServiceLayer):
            service = self._service(merged.service, (*path, "service"), model_path)
        metadata = None
        if isinstance(merged.metadata, MetadataLayer):
            metadata = ModelMetadata(**_said(merged.metadata))
        return Model(name=merged.name, model_path=model_path, service=service, metadata=metadata)

    def _service(self, merged: ServiceLayer, path: Path, model_path: str | None) -> ModelService:
        command, check = merged.start_command, merged.health_check
        place = (*path, "start_command")
        return ModelService(
            start_command=self._command(command, place, model_path) if command else None,
            port=merged.port or None,
            health_check=self._check(check, (*path, "health_check")) if check else None,
        )

    def _command(
        self, command: str | tuple[str, ...], path: Path, model_path: str | None
    ) -> tuple[str, ...]:
        words = self._split(command, path) if isinstance(command, str) else command
        if any("\0" in word for word in words):
            self.refuse(path, "a NUL cannot be passed to a program; leave it out")
        if model_path is None and any(MODEL_PATH in word for word in words):
            self.refuse(path, f"{MODEL_PATH} stands for nothing; give the revision a model_path")
        longer = len(model_path or "") - len(MODEL_PATH)
        length = sum(len(word) + word.count(MODEL_PATH) * longer for word in words)
        if length > COMMAND_MAX_CHARS:
            self.refuse(
                path,
                f"with the path of the model it has {length} characters; at most "
                f"{COMMAND_MAX_CHARS} can be passed to a program",
            )
        return tuple(word.replace(MODEL_PATH, model_path or "") for word in words)

    def _split(self, command: str, path: Path) -> list[str]:
        try:
            words = shlex.split(command)
        except ValueError as error:
            self.refuse(path, f"{command[:80]!r} cannot be split: {error}; write a list of words")
        if not words:
            self.refuse(path, "there is no word in it; null leaves the image its own command")
        if meant := _OPERATORS.intersection(words):
            self.refuse(
                path,
                f"{min(meant)!r} is for a shell, and none reads this; write a list of words, "
                'such as ["sh", "-c", "..."]',
            )
        return words

    def _check(self, merged: HealthCheckLayer, path: Path) -> ModelHealthCheck:
        if not isinstance(merged.path, str):
            self._missing((*path, "path"))
        said = _said(merged)
        said["path"] = self._valid((*path, "path"), probe_path, merged.path)
        codes = merged.expected_status_code
        if codes is not None and codes is not UNSET:
            text = self._valid((*path, "expected_status_code"), status_text, codes)
            said["expected_status_code"] = codes if isinstance(codes, int) else text
        return ModelHealthCheck(**said)

    def _valid(self, path: Path, check: Callable[[_T], str], value: _T) -> str:
        try:
            return check(value)
        except InvalidInput as error:
            self.refuse(path, str(error))

    def _missing(self, path: Path) -> NoReturn:
        """Refuse a value that must be, at the layer that cleared it or else wrote around it."""
        told = source_of(path, self.layers) is not Source.DEFAULT
        layer = self._layer(path if told else path[:-1])
        raise InvalidInput(f"{layer}: {text_of(path)}: there is none; write it")


def _said(layer: msgspec.Struct) -> dict[str, Any]:
    """Return what is neither absent nor cleared."""
    found = {name: getattr(layer, name) for name in layer.__struct_fields__}
    return {name: value for name, value in found.items() if value not in (None, UNSET)}


def _leaves(value: object, path: Path) -> Iterator[tuple[Path, object]]:
    """Yield the values of a definition with their places; a list of words is one value."""
    match value:
        case msgspec.Struct():
            for name in value.__struct_fields__:
                yield from _leaves(getattr(value, name), (*path, name))
        case (Model(), *_) as models:
            for number, model in enumerate(models):
                yield from _leaves(model, (*path, number))
        case _ if value is not UNSET:
            yield path, value
        case _:
            pass
