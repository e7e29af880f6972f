"""Laying layers over each other keeps its promises whatever the layers say."""

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET, Struct

from controller.definition.layers import (
    DefinitionLayer,
    HealthCheckLayer,
    MetadataLayer,
    ModelLayer,
    ServiceLayer,
)
from controller.definition.merge import merge, source_of
from controller.definition.resolve import resolve
from controller.definition.variants import RuntimeVariant
from controller.errors import InvalidInput
from controller.model_definition import Source

FEW = settings(max_examples=50, deadline=None)
"""Drawing three layers costs more than laying them over each other."""
PORTS = st.integers(1, 65_535)
TOLD = re.compile(r"(the variant '\S+'|the definition file|the override): models")
WORDS = st.text("abc", min_size=1, max_size=3)
SCALARS: dict[str, st.SearchStrategy[Any]] = {
    "name": WORDS,
    "model_path": WORDS,
    "author": WORDS,
    "label": st.lists(WORDS, max_size=2).map(tuple),
    "start_command": st.lists(WORDS, min_size=1, max_size=3).map(tuple),
    "port": PORTS,
    "path": WORDS,
    "interval": st.floats(0.1, 1200),
    "max_retries": st.integers(1, 1000),
    "expected_status_code": st.sampled_from([200, "200-299", (200, 204)]),
}


def layers(*, nulls: bool) -> st.SearchStrategy[DefinitionLayer]:
    """Draw layers; without `nulls` they only add and replace."""

    def a(kind: type[Struct], *names: str, **inner: Any) -> st.SearchStrategy[Any]:  # noqa: ANN401
        fields = {name: SCALARS[name] for name in names} | inner
        absent = st.sampled_from([UNSET, None] if nulls else [UNSET])
        return st.builds(kind, **{name: absent | each for name, each in fields.items()})

    check = a(HealthCheckLayer, "path", "interval", "max_retries", "expected_status_code")
    service = a(ServiceLayer, "start_command", "port", health_check=check)
    metadata = a(MetadataLayer, "author", "label")
    model = a(ModelLayer, "name", "model_path", service=service, metadata=metadata)
    models = st.lists(model, max_size=3).map(tuple)
    return st.builds(DefinitionLayer, models=models)


EMPTY = DefinitionLayer()


@FEW
@given(layers(nulls=True))
def test_an_empty_layer_above_or_below_changes_nothing(layer: DefinitionLayer) -> None:
    """R-56"""
    assert merge(EMPTY, layer) == layer
    assert merge(layer, EMPTY) == layer
    assert merge(layer, DefinitionLayer(models=())) == layer


@FEW
@given(layers(nulls=True))
def test_a_layer_over_itself_is_itself(layer: DefinitionLayer) -> None:
    assert merge(layer, layer) == layer


@FEW
@given(layers(nulls=False), layers(nulls=False), layers(nulls=False))
def test_without_nulls_it_does_not_matter_which_two_are_merged_first(
    low: DefinitionLayer, middle: DefinitionLayer, high: DefinitionLayer
) -> None:
    assert merge(merge(low, middle), high) == merge(low, merge(middle, high))


def test_a_null_between_two_structs_is_why_layers_are_merged_from_below() -> None:
    def says(service: ServiceLayer | None) -> DefinitionLayer:
        return DefinitionLayer(models=(ModelLayer(service=service),))

    low, middle, high = says(ServiceLayer(port=1)), says(None), says(ServiceLayer())
    assert merge(merge(low, middle), high) == says(ServiceLayer())
    assert merge(low, merge(middle, high)) == says(ServiceLayer(port=1))


@FEW
@given(layers(nulls=True), layers(nulls=True))
def test_each_value_is_that_of_the_highest_layer_that_speaks(
    low: DefinitionLayer, high: DefinitionLayer
) -> None:
    """R-56"""
    merged = merge(low, high)
    stack = [(Source.FILE, low), (Source.OVERRIDE, high)]
    assert isinstance(merged.models, tuple)
    for number, model in enumerate(merged.models):
        below, above = (models_of(each)[number : number + 1] for each in (low, high))
        for name in ("name", "model_path"):
            said = [getattr(each, name) for each in (*below, *above)]
            expected = next((value for value in reversed(said) if value is not UNSET), UNSET)
            assert getattr(model, name) == expected
            from_high = bool(above) and getattr(above[0], name) is not UNSET
            from_low = bool(below) and getattr(below[0], name) is not UNSET
            source = source_of(("models", number, name), stack)
            assert (source is Source.OVERRIDE) is from_high
            assert (source is Source.FILE) is (from_low and not from_high)


@FEW
@given(layers(nulls=True), layers(nulls=True))
def test_a_null_above_clears_and_a_value_above_stays(
    low: DefinitionLayer, high: DefinitionLayer
) -> None:
    merged = models_of(merge(low, high))
    for model, above in zip(merged, models_of(high), strict=False):
        for name in ("service", "metadata", "name", "model_path"):
            if getattr(above, name) is None:
                assert getattr(model, name) is None
        if isinstance(above.service, ServiceLayer):
            assert isinstance(model.service, ServiceLayer)
            if above.service.start_command is not UNSET:
                assert model.service.start_command == above.service.start_command


@FEW
@given(layers(nulls=True), layers(nulls=True), st.sampled_from(RuntimeVariant))
def test_layers_come_to_a_definition_or_to_a_sentence(
    file: DefinitionLayer, override: DefinitionLayer, variant: RuntimeVariant
) -> None:
    """R-25"""
    try:
        found = resolve(variant, file_layer=file, override=override, model_path="/m")
    except InvalidInput as refused:
        if TOLD.match(str(refused)) is None:
            raise
        return
    wanted = max(len(models_of(each)) for each in (file, override))
    assert len(found.models) == max(wanted, variant is not RuntimeVariant.CUSTOM)
    assert all("{model_path}" not in word for word in _words(found.served))


def models_of(layer: DefinitionLayer) -> tuple[ModelLayer, ...]:
    return layer.models if isinstance(layer.models, tuple) else ()


def _words(service: Any) -> tuple[str, ...]:  # noqa: ANN401 - the service or none
    return (service and service.start_command) or ()


@pytest.mark.parametrize("models", [None, ()])
def test_no_models_above_keep_or_clear_those_below(models: tuple[ModelLayer, ...] | None) -> None:
    below = DefinitionLayer(models=(ModelLayer(name="a"),))
    merged = merge(below, DefinitionLayer(models=models))
    assert merged.models == (None if models is None else below.models)
