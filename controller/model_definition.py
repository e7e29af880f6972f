"""What a model is and how it is served: the definition that a revision keeps, resolved in full.

Made once by `controller.definition` when a revision is added, stored with it, and read by people;
provisioning reads the `RevisionSpec` that was made of it. Lengths of time are seconds, under the
names that definition files have. Reading is liberal: what another system stored may say more.
"""

import sys
from enum import StrEnum
from typing import Annotated, Final

import msgspec
from msgspec import UNSET, UnsetType

INTERVAL_MAX_S: Final = 1200
"""A third of a target's life on the bus: two probes may fail to refresh it before it is gone."""
PORT_MAX: Final = 65_535
FLOAT_MAX: Final = sys.float_info.max

Port = Annotated[int, msgspec.Meta(ge=1, le=PORT_MAX)]
Interval = Annotated[float, msgspec.Meta(ge=0.1, le=INTERVAL_MAX_S)]
WaitTime = Annotated[float, msgspec.Meta(gt=0, le=600)]
Times = Annotated[int, msgspec.Meta(ge=1, le=1000)]
Grace = Annotated[float, msgspec.Meta(ge=0, le=86_400)]


class Source(StrEnum):
    """Where a value of a definition comes from; the later one wins."""

    DEFAULT = "default"
    """Nobody said anything, or somebody cleared it."""
    REVISION = "revision"
    """`model_path` or `model_folder` of the revision."""
    VARIANT = "variant"
    """What the runtime variant brings."""
    FILE = "file"
    """The definition file in the model folder."""
    OVERRIDE = "override"
    """`definition` of the revision."""


class ModelHealthCheck(msgspec.Struct, frozen=True, kw_only=True):
    """How a replica is asked whether it serves."""

    path: str
    interval: Interval = 10.0
    max_wait_time: WaitTime = 15.0
    expected_status_code: int | str = 200
    max_retries: Times = 10
    healthy_threshold: Times = 1
    initial_delay: Grace = 60.0


class ModelService(msgspec.Struct, frozen=True, kw_only=True):
    """What serves a model; without a command the image's own is run."""

    start_command: tuple[str, ...] | None = None
    port: Port | None = None
    health_check: ModelHealthCheck | None = None


_Number = int | Annotated[float, msgspec.Meta(ge=-FLOAT_MAX, le=FLOAT_MAX)]
"""JSON has no infinity and no NaN: stored, either would be read as nothing."""

_Word = str | _Number | UnsetType | None


class ModelMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """What people say of a model; nothing here decides anything."""

    author: _Word = UNSET
    title: _Word = UNSET
    version: _Word = UNSET
    created: _Word = UNSET
    last_modified: _Word = UNSET
    description: _Word = UNSET
    task: _Word = UNSET
    category: _Word = UNSET
    architecture: _Word = UNSET
    framework: tuple[str, ...] | UnsetType | None = UNSET
    label: tuple[str, ...] | UnsetType | None = UNSET
    license: _Word = UNSET
    min_resource: dict[str, str | _Number] | UnsetType | None = UNSET


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """One model of a definition."""

    name: str
    model_path: str | None = None
    service: ModelService | None = None
    metadata: ModelMetadata | None = None


class ModelDefinition(msgspec.Struct, frozen=True, kw_only=True):
    """The models of a revision; what a replica runs is the first one that has a service."""

    models: tuple[Model, ...]
    variant: str = ""
    sources: dict[str, Source] = msgspec.field(default_factory=dict)
    """For each place, such as `models[0].service.port`, the layer that its value is from."""

    @property
    def served(self) -> ModelService | None:
        """Return what a replica runs; None where no model has a service."""
        return next((model.service for model in self.models if model.service is not None), None)
