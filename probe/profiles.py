"""What each inference engine says of its own health, by the name a target may use.

Pure data, read by `probe.admit` and by the documentation. A profile brings its own paths, so that
one deployment may say `vllm` and be done; statuses, headers, timeouts and thresholds stay the
target's. Only what an engine documents belongs here, and nothing that makes it generate a token.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from probe.specs import CheckSpec, HttpCheck, JsonExpectation, TcpCheck


class Profile(NamedTuple):
    """One named way to check a replica."""

    checks: tuple[CheckSpec, ...]
    """All must pass, in order. A check without a path has the target's."""
    sentence: str
    source: str
    """Where the engine promises it; empty for our own."""


def _get(path: str, *expectations: JsonExpectation) -> tuple[CheckSpec, ...]:
    return (HttpCheck(path=path, method="GET", json=expectations),)


PROFILES: Final[Mapping[str, Profile]] = MappingProxyType(
    {
        "http": Profile(
            (HttpCheck(),),
            "one request to `health_path`, judged by `expected_status`",
            "",
        ),
        "tcp": Profile(
            (TcpCheck(),),
            "an accepted connection; with `https` a completed handshake too",
            "",
        ),
        "custom": Profile(
            (HttpCheck(),),
            "as `http`: for an engine that has no profile, under the path that it documents",
            "",
        ),
        "vllm": Profile(
            _get("/health"),
            "200 while the engine's process lives, 503 once it is dead; open without an API key",
            "https://docs.vllm.ai/en/latest/api/vllm/entrypoints/serve/instrumentator/health/",
        ),
        "sglang": Profile(
            _get("/health"),
            "200 while the server answers; `/health_generate` would cost a token a probe",
            "https://docs.sglang.io/basic_usage/native_api.html",
        ),
        "tgi": Profile(
            _get("/health"),
            "200 while the shards answer, 503 when one does not",
            "https://huggingface.github.io/text-generation-inference/",
        ),
        "nim": Profile(
            _get("/v1/health/ready"),
            "200 when requests are taken, 503 while the model loads",
            "https://docs.nvidia.com/nim/large-language-models/2.0.0/reference/api-reference.html",
        ),
        "triton": Profile(
            _get("/v2/health/ready"),
            "200 when all models are ready to infer",
            "https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol",
        ),
        "openai": Profile(
            _get("/v1/models", JsonExpectation(path="data[0].id")),
            "the list of models names at least one; most engines want an API key here",
            "https://developers.openai.com/api/reference/resources/models/methods/list",
        ),
    }
)
