"""What types cannot say of a health check: which paths and which status codes can be asked for.

Used for the plain `health_check` of a revision and for that of a definition.
"""

from collections.abc import Sequence
from typing import Final

from controller.errors import InvalidInput
from controller.model import HealthCheck
from controller.model_definition import ModelHealthCheck
from probe.errors import WireError
from probe.wire import status_set

PATH_MAX_CHARS: Final = 2048


def probe_path(path: str) -> str:
    """Return `path` with its leading slash.

    Raises:
        InvalidInput: if it cannot be sent as it is.
    """
    slashed = path if path.startswith("/") else f"/{path}"
    if len(slashed) > PATH_MAX_CHARS or not all("!" <= letter <= "~" for letter in slashed):
        raise InvalidInput(
            f"{path[:80]!r} must be printable ASCII without spaces, at most {PATH_MAX_CHARS} "
            "characters; encode others as %XX"
        )
    return slashed


def status_text(codes: int | str | Sequence[int | str]) -> str:
    """Return a set of status codes as text, such as `200-299,304`.

    >>> status_text([200, "301-303"])
    '200,301-303'

    Raises:
        InvalidInput: if a part is neither a code nor an ascending range in 100-999.
    """
    text = ",".join(map(str, [codes] if isinstance(codes, int | str) else codes))
    try:
        return status_set(text).text
    except WireError as error:
        raise InvalidInput(str(error).removeprefix("expected_status ")) from error


def health_check_of(defined: ModelHealthCheck) -> HealthCheck:
    """Return the check that a route gets."""
    return HealthCheck(
        path=defined.path,
        interval_s=defined.interval,
        max_wait_time_s=defined.max_wait_time,
        expected_status_code=str(defined.expected_status_code),
        max_retries=defined.max_retries,
        healthy_threshold=defined.healthy_threshold,
        initial_delay_s=defined.initial_delay,
    )
