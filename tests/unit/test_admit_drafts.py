"""What targets of one kind share is prepared once; what each has of its own never is."""

import pytest

from probe.admit import admit
from probe.errors import MalformedEntry
from probe.http.policy import ConnectPolicy
from probe.profiles import PROFILES
from probe.settings import PRIVATE_RANGES
from probe.wire import ReplicaProbeTarget
from tests.fakes import entries

POLICY = ConnectPolicy.of(PRIVATE_RANGES)


def target(**fields: object) -> ReplicaProbeTarget:
    return entries.target(1, **{"replica_host": "10.0.0.1", **fields})


@pytest.mark.parametrize("fields", [{}, {"method": "HEAD"}, {"host_header": "llm.example"}])
@pytest.mark.parametrize("name", sorted(PROFILES))
def test_what_equal_targets_share_is_made_once_and_no_different(
    name: str, fields: dict[str, str]
) -> None:
    if name == "openai" and "method" in fields:
        return  # asks for a body, which no HEAD brings
    kind = {"health_path": "/a?Host:any", "expected_status": "200,204", **fields}
    for host in ("10.0.0.1", "10.0.0.2", "fd00::1"):
        shared = admit(target(checks=name, replica_host=host, **kind), POLICY)
        assert shared == admit(target(checks=(name,), replica_host=host, **kind), POLICY)


def test_the_host_of_a_target_whose_like_was_seen_is_looked_at_all_the_same() -> None:
    admit(target(), POLICY)
    with pytest.raises(MalformedEntry, match="host_header"):
        admit(target(host_header="a\r\nX: y"), POLICY)
