"""Layers of a definition laid over each other, and who said what.

Used by `resolve`, from the lowest layer to the highest. What is absent above keeps what lies
below, null clears it. Models are laid over each other by their place in the list, and those that
only one side has are kept; structs are merged key by key; every other list is replaced whole.
"""

from collections.abc import Sequence
from itertools import zip_longest
from typing import TypeVar

from msgspec import UNSET, Struct

from controller.definition.layers import DefinitionLayer, ModelLayer
from controller.model_definition import Source

Path = tuple[str | int, ...]
"""Where a value stands, such as `("models", 0, "service", "port")`."""

_Struct = TypeVar("_Struct", bound=Struct)


def merge(lower: DefinitionLayer, upper: DefinitionLayer) -> DefinitionLayer:
    """Lay `upper` over `lower`.

    >>> from controller.definition.layers import ServiceLayer
    >>> below = ModelLayer(name="a", service=ServiceLayer(port=1, start_command="serve"))
    >>> above = ModelLayer(service=ServiceLayer(port=2, start_command=None))
    >>> merged = merge(DefinitionLayer(models=(below,)), DefinitionLayer(models=(above,)))
    >>> merged.models[0].name, merged.models[0].service
    ('a', ServiceLayer(start_command=None, port=2, health_check=UNSET))

    Associative as long as no null lies between two structs: what a null clears, it clears for the
    layers below it, and is forgotten once a struct is laid over it.
    """
    below, above = lower.models, upper.models
    if not isinstance(below, tuple) or not isinstance(above, tuple):
        return lower if above is UNSET else upper
    return DefinitionLayer(models=tuple(_either(*pair) for pair in zip_longest(below, above)))


def _either(lower: ModelLayer | None, upper: ModelLayer | None) -> ModelLayer:
    if lower is None or upper is None:
        return lower or upper or ModelLayer()
    return _over(lower, upper)


def _over(lower: _Struct, upper: _Struct) -> _Struct:
    return type(lower)(
        **{
            name: _value(getattr(lower, name), getattr(upper, name))
            for name in lower.__struct_fields__
        }
    )


def _value(lower: object, upper: object) -> object:
    if upper is UNSET:
        return lower
    if isinstance(lower, Struct) and isinstance(upper, Struct):
        return _over(lower, upper)
    return upper


def source_of(path: Path, layers: Sequence[tuple[Source, DefinitionLayer]]) -> Source:
    """Return which of `layers`, lowest first, decided the value at `path`."""
    for source, layer in reversed(layers):
        found: object = layer
        for number, step in enumerate(path):
            found = _inside(found, step)
            if found is UNSET:
                break
            if found is None:  # cleared: by whom matters for the value, not for what it held
                return source if number == len(path) - 1 else Source.DEFAULT
        else:
            return source
    return Source.DEFAULT


def _inside(value: object, step: str | int) -> object:
    if isinstance(step, str):
        return getattr(value, step)
    return value[step] if isinstance(value, tuple) and step < len(value) else UNSET


def text_of(path: Path) -> str:
    """Return a path as people write it.

    >>> text_of(("models", 0, "service", "port"))
    'models[0].service.port'
    """
    words = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return "".join(words).removeprefix(".")
