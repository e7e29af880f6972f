"""What the fleet process and its clients say to each other: JSON over HTTP on a unix socket.

| request          | body                | reply                    |
|------------------|---------------------|--------------------------|
| POST /start      | list of `Wanted`    | id -> why refused, or "" |
| POST /inspect    | list of ids         | id -> `Report`           |
| POST /stop       | list of ids         | ids that were there      |
| POST /inject     | `Inject`            | ids that are not known   |
| POST /repair     | `Mend`              | ids that are not known   |
| POST /counts     | list of ids         | id -> `Count`            |
"""

from typing import Annotated

import msgspec

from controller.provision.fleet.replica import Behaviour, Fault, Repair
from controller.provision.port import SessionState


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """A replica to start, unless it has started already."""

    id: str
    path: str
    """Where it answers its health check; every other path is 404."""
    behaviour: Behaviour


class Report(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of one replica; a replica never started, or stopped, is not reported."""

    state: SessionState
    host: str
    port: int
    exit_reason: str = ""


class Inject(msgspec.Struct, frozen=True, kw_only=True):
    """A fault to befall replicas."""

    ids: tuple[str, ...]
    fault: Fault
    seconds: Annotated[float, msgspec.Meta(ge=0, le=86_400)] = 1.0
    """Half the period of `flap`, the delay of `slow`."""


class Mend(msgspec.Struct, frozen=True, kw_only=True):
    """A repair to be done to replicas."""

    ids: tuple[str, ...]
    how: Repair


class Count(msgspec.Struct, frozen=True, gc=False):
    """What one replica has seen: the truth a prober's own counters are held against."""

    requests: int
    connections: int
