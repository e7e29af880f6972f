"""Definitions as tests write them: layers from plain values, and files like those in use."""

from typing import Any, Final

import msgspec

from controller.definition.layers import DefinitionLayer, layer_from
from controller.definition.resolve import resolve
from controller.definition.variants import RuntimeVariant
from controller.model_definition import ModelDefinition, ModelHealthCheck, ModelService

MODEL: Final = "/models/a-model"


def layer(*models: dict[str, Any] | None) -> DefinitionLayer:
    """Return a layer that says so much of each model."""
    return layer_from({"models": list(models)}, what="a layer")


def service(**said: Any) -> DefinitionLayer:  # noqa: ANN401 - whatever JSON holds
    """Return a layer that speaks of the first model's service."""
    return layer({"service": said})


def check(**said: Any) -> DefinitionLayer:  # noqa: ANN401 - same
    """Return a layer that speaks of the first model's health check."""
    return service(health_check=said)


def come_to(
    variant: str = "vllm",
    *,
    file: DefinitionLayer | None = None,
    override: DefinitionLayer | None = None,
    model_path: str | None = MODEL,
) -> ModelDefinition:
    return resolve(
        RuntimeVariant(variant), file_layer=file, override=override, model_path=model_path
    )


def served(definition: ModelDefinition) -> ModelService:
    found = definition.served
    assert found is not None
    return found


def checked(definition: ModelDefinition) -> ModelHealthCheck:
    found = served(definition).health_check
    assert found is not None
    return found


def builtins(value: object) -> Any:  # noqa: ANN401 - same
    return msgspec.to_builtins(value)


IN_USE: Final = {
    "vllm": """
models:
- name: "Llama-3.1-8B-Instruct"
  model_path: "/models"
  service:
    start_command:
    - python3
    - -m
    - vllm.entrypoints.openai.api_server
    - --model
    - /models/Llama-3.1-8B-Instruct
    - --served-model-name
    - llama-3.1-8b
    - --max-model-len
    - "8192"
    port: 8000
    health_check:
      path: /health
      interval: 10.0
      max_retries: 10
      max_wait_time: 15.0
      expected_status_code: 200
      initial_delay: 60.0
  metadata:
    author: ada
    title: Llama 3.1 8B
    version: 1.0
    created: 2024-09-03
    last_modified: 2024-09-03T10:00:00Z
    description: |
      Two lines,
      of text.
    task: text-generation
    category: LLM
    architecture: null
    framework: [vllm, pytorch]
    label: [chat, eight-billion]
    license: llama3.1
    min_resource: {cpu: 4, mem: 16g, cuda.shares: 1.5}
""",
    "text as command": """
models:
  - name: embed
    model_path: /models/embed
    service:
      start_command: python serve.py --path "{model_path}" --title 'Embeddings, small'
      port: 9000
      health_check: {path: readyz, max_retries: 5}
""",
    "without a check": """
models: [{name: batch, model_path: /models/batch, service: {start_command: [run], port: 8080}}]
""",
    "two models": """
models:
  - {name: weights, model_path: /models/weights}
  - name: server
    model_path: /models/server
    service: {start_command: [serve, "{model_path}"], port: 7000, health_check: {path: /ok}}
""",
}
"""Definition files of shapes that are in use."""
