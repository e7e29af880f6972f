"""What each runtime variant comes to, alone and with a model."""

import pytest

from controller.definition.request import RevisionRequest, resolved
from controller.definition.resolve import resolve
from controller.definition.variants import ENGINES, RuntimeVariant
from controller.errors import InvalidInput
from controller.model import HealthCheck, RevisionSpec
from controller.model_definition import Source

MODEL = "/models/a-model"
SGLANG = ("python", "-m", "sglang.launch_server", "--model-path", MODEL)
TABLE = [
    ("vllm", 8000, "/health", 1800, ("vllm", "serve", MODEL)),
    ("sglang", 9001, "/health", 1800, SGLANG),
    ("nim", 8000, "/v1/health/ready", 1800, ()),
    ("huggingface-tgi", 3000, "/info", 1800, ("text-generation-launcher", "--model-id", MODEL)),
    ("modular-max", 8000, "/health", 1800, ("max", "serve", "--model", MODEL)),
    ("llama-cpp", 8080, "/health", 60, ("llama-server",)),
    ("cmd", 8000, None, None, ()),
]


@pytest.mark.parametrize(("variant", "port", "path", "delay", "command"), TABLE)
def test_a_variant_brings_port_check_patience_and_command(
    variant: str, port: int, path: str | None, delay: float | None, command: tuple[str, ...]
) -> None:
    asked = RevisionRequest(
        variant=RuntimeVariant(variant), model_path=MODEL, image="an-image", environment={"A": "b"}
    )
    found = resolved(asked, file_layer=None, folder=None)
    check = None if path is None else HealthCheck(path=path, initial_delay_s=delay or 0)
    assert found.spec == RevisionSpec(
        command=command, port=port, health_check=check, image="an-image", environment={"A": "b"}
    )
    assert found.definition is not None
    (model,) = found.definition.models
    assert (model.name, model.model_path, model.metadata) == (variant, MODEL, None)
    assert found.definition.variant == variant
    assert found.definition.sources["models[0].service.port"] is Source.VARIANT


def test_every_variant_has_its_row() -> None:
    """R-24: no name leads to a KeyError."""
    assert set(ENGINES) == set(RuntimeVariant)
    assert [row[0] for row in TABLE] == [each for each in RuntimeVariant if each != "custom"]


def test_custom_without_a_file_is_refused_with_the_names_looked_for() -> None:
    """R-25"""
    with pytest.raises(InvalidInput, match=r"the variant 'custom' takes .* model-definition\.yaml"):
        resolve(RuntimeVariant.CUSTOM, file_layer=None, override=None, model_path=MODEL)


def test_a_command_that_needs_the_model_is_refused_without_one() -> None:
    said = r"the variant 'vllm': models\[0\]\.service\.start_command: \{model_path\} stands for not"
    with pytest.raises(InvalidInput, match=said):
        resolve(RuntimeVariant.VLLM, file_layer=None, override=None, model_path=None)
