"""What every test shares: the event loop that the daemons run on, and Ctrl-C."""

import signal

import pytest
from hypothesis import HealthCheck, settings


def pytest_configure() -> None:
    """Let Ctrl-C reach what the tests start, also where a shell put the whole run behind `&`.

    Such a shell ignores SIGINT for its children, and they for theirs: a command that a test ends
    by it would never end.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # An example that takes long says something of the machine, nothing of the property.
    settings.register_profile(
        "untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    settings.load_profile("untimed")


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return ("asyncio", {"use_uvloop": True})
