"""The runtime variants: what each engine is started with and asked, unless somebody says more.

The lowest layer of a definition, as data. The patience of 1800 s is what tens of gigabytes of
weights take from a slow disk; a small engine on local files needs a minute.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, NamedTuple

from msgspec import UNSET

from controller.definition.layers import (
    DefinitionLayer,
    HealthCheckLayer,
    ModelLayer,
    ServiceLayer,
)

MODEL_PATH: Final = "{model_path}"
"""Stands for the path of the model in a start command."""
LARGE_MODEL_S: Final = 1800.0


class RuntimeVariant(StrEnum):
    """What serves the model."""

    VLLM = "vllm"
    SGLANG = "sglang"
    NIM = "nim"
    HUGGINGFACE_TGI = "huggingface-tgi"
    MODULAR_MAX = "modular-max"
    LLAMA_CPP = "llama-cpp"
    CMD = "cmd"
    """Whatever the image runs; not checked unless somebody says how."""
    CUSTOM = "custom"
    """Whatever the definition file says: it must be there."""


class Engine(NamedTuple):
    """One row of the table; None: nothing is said."""

    port: int | None
    health_path: str | None
    initial_delay_s: float | None
    start_command: tuple[str, ...] | None


_SGLANG: Final = ("python", "-m", "sglang.launch_server", "--model-path", MODEL_PATH)
_TGI: Final = ("text-generation-launcher", "--model-id", MODEL_PATH)
_MAX: Final = ("max", "serve", "--model", MODEL_PATH)
ENGINES: Final[Mapping[RuntimeVariant, Engine]] = {
    RuntimeVariant.VLLM: Engine(8000, "/health", LARGE_MODEL_S, ("vllm", "serve", MODEL_PATH)),
    RuntimeVariant.SGLANG: Engine(9001, "/health", LARGE_MODEL_S, _SGLANG),
    RuntimeVariant.NIM: Engine(8000, "/v1/health/ready", LARGE_MODEL_S, None),
    RuntimeVariant.HUGGINGFACE_TGI: Engine(3000, "/info", LARGE_MODEL_S, _TGI),
    RuntimeVariant.MODULAR_MAX: Engine(8000, "/health", LARGE_MODEL_S, _MAX),
    RuntimeVariant.LLAMA_CPP: Engine(8080, "/health", 60.0, ("llama-server",)),
    RuntimeVariant.CMD: Engine(8000, None, None, None),
    RuntimeVariant.CUSTOM: Engine(None, None, LARGE_MODEL_S, None),
}


def generated(variant: RuntimeVariant) -> DefinitionLayer:
    """Return the layer that a variant brings; `custom` has its own from the file."""
    engine = ENGINES[variant]
    check = HealthCheckLayer(
        path=UNSET if engine.health_path is None else engine.health_path,
        initial_delay=UNSET if engine.initial_delay_s is None else engine.initial_delay_s,
    )
    service = ServiceLayer(
        start_command=UNSET if engine.start_command is None else engine.start_command,
        port=UNSET if engine.port is None else engine.port,
        health_check=UNSET if engine.health_path is None else check,
    )
    return DefinitionLayer(models=(ModelLayer(name=variant.value, service=service),))


def patient(file: DefinitionLayer) -> DefinitionLayer:
    """Return what lies under the file of `custom`: time to load for every check it describes."""
    patience = HealthCheckLayer(initial_delay=ENGINES[RuntimeVariant.CUSTOM].initial_delay_s)
    checked = ModelLayer(service=ServiceLayer(health_check=patience))
    models = file.models if isinstance(file.models, tuple) else ()
    return DefinitionLayer(
        models=tuple(checked if _has_check(model) else ModelLayer() for model in models)
    )


def _has_check(model: ModelLayer) -> bool:
    service = model.service
    return isinstance(service, ServiceLayer) and isinstance(service.health_check, HealthCheckLayer)
