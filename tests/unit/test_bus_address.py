"""An address of the bus that cannot work is refused before it is used, in one sentence."""

import pytest
from redis.asyncio.sentinel import MasterNotFoundError

from probe.bus.client import explain
from probe.bus.connect import connect
from probe.errors import SettingsError


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("http://bus:6379/0", "scheme 'http'"),
        ("redis://bus:99999/0", "0-65535"),
        ("redis://bus:six/0", "six"),
        ("redis://bus/0?colour=blue", "colour"),
        ("", "scheme ''"),
    ],
)
def test_an_address_that_cannot_work_is_refused_with_the_remedy(url: str, what: str) -> None:
    with pytest.raises(SettingsError, match=what) as refused:
        connect(url)
    assert "write for example redis://" in str(refused.value)


def test_sentinels_that_know_no_primary_are_told_without_the_client_s_objects() -> None:
    error = MasterNotFoundError("No master found for 'main' : <redis.asyncio.client.Redis(...)>")
    said = str(explain(error, "sentinel service main"))
    assert "No master found for 'main')" in said
    assert "<redis" not in said
