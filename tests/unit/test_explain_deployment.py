"""What `explain` says of a deployment in each of its states, word for word."""

# ruff: noqa: E501 - the text stands here as it is printed

from inspect import cleandoc

import pytest

from controller.model import Lifecycle
from tests.fakes.deployment_scenes import CASES
from tests.fakes.telling import told

GOLDEN = {
    "pending": """
        STATE  pending, for 1 min 30 s, no revision has served yet
        COUNT  0 of 3 replicas ready: none
        NEXT   nothing until a revision is activated: fleetpulse rollout start demo NUMBER
        """,
    "ready": """
        STATE  ready, for 1 min 30 s, revision 1
        COUNT  3 of 3 replicas ready: 3 ready
        RULE   deploying, 1 min 30 s ago: rolling update promoted: 3 of 3 replicas of revision 1 ready, 0 starting; none of another left; it took 41 s
        NEXT   nothing: it is as wanted
        """,
    "ready, and one is missing": """
        STATE  ready, for 1 min 30 s, revision 1
        COUNT  2 of 3 replicas ready: 2 ready, 1 terminating healthy
        NEXT   1 replica to be started (check_replicas, within 30 s)
        """,
    "ready, one is missing, and HOLD": """
        STATE  ready, for 1 min 30 s, revision 1
        COUNT  2 of 3 replicas ready: 2 ready
        NEXT   1 replica to be started (check_replicas, within 30 s)
        NOTE   HOLD no_prober: no prober is alive that trusts itself; nobody is evicted meanwhile, its count is kept
        """,
    "ready, and its replicas end early": """
        STATE  ready, for 1 min 30 s, revision 1
        COUNT  2 of 3 replicas ready: 2 ready
        HELD   back-off: 3 attempts in a row ended early, the next in 15 s; the last: the session is exited: exited with code 1; waits for 15 s
        NEXT   1 replica to be started (check_replicas, within 30 s), not before 15 s
        """,
    "ready, and one too many": """
        STATE  ready, for 1 min 30 s, revision 1
        COUNT  4 of 3 replicas ready: 4 ready
        NEXT   1 replica to be drained (check_replicas, within 30 s)
        """,
    "ready, and one has no traffic": """
        STATE  ready, for 1 min 30 s, revision 1
        COUNT  3 of 3 replicas ready: 3 ready
        NEXT   1 replica to get the traffic that a rollout left them without (check_replicas, within 30 s)
        """,
    "ready, and one is not": """
        STATE  ready, for 1 min 30 s, revision 1
        COUNT  2 of 3 replicas ready: 2 ready, 1 running unhealthy
        NEXT   1 replica not ready: explain them, see fleetpulse route list demo
        """,
    "ready, external, and one is missing": """
        STATE  ready, for 1 min 30 s, revision 1
        COUNT  2 of 3 replicas ready: 2 ready
        NEXT   1 to be registered: fleetpulse route register demo
        """,
    "provisioning": """
        STATE  deploying/provisioning, for 1 min 30 s, from revision 1 to revision 2
        COUNT  3 of 3 replicas ready: 3 ready
        COUNT  0 of 3 of revision 2 ready, 0 starting, 3 of others left
        COUNT  0 of 3 new replicas lost before it stops (max_failed_replicas)
        COUNT  3 of 4 active (target 3 + surge 1)
        COUNT  3 ready, at least 3 are kept (unavailable 0)
        COUNT  1 min 30 s of 10 min before it turns back (rollout_timeout_s)
        NEXT   replace: starts 1 of revision 2 at its next run
        NEXT   if it is not done, it turns back in 8 min 30 s at the earliest
        """,
    "progressing": """
        STATE  deploying/progressing, for 1 min 30 s, from revision 1 to revision 2
        COUNT  3 of 3 replicas ready: 1 provisioning warming up, 3 ready
        COUNT  1 of 3 of revision 2 ready, 1 starting, 2 of others left
        COUNT  1 of 3 new replicas lost before it stops (max_failed_replicas)
        COUNT  4 of 4 active (target 3 + surge 1)
        COUNT  3 ready, at least 3 are kept (unavailable 0)
        COUNT  1 min 30 s of 10 min before it turns back (rollout_timeout_s)
        TRIED  deploying (waiting, 4 times), 5 s ago: waiting: 1 of 3 replicas of revision 2 ready, 1 starting; 2 of others left, 2 of them ready
        NEXT   wait: waits for 1 replica of revision 2 to become ready
        NEXT   if it is not done, it turns back in 8 min 30 s at the earliest
        """,
    "progressing, and it may drain": """
        STATE  deploying/progressing, for 1 min 30 s, from revision 1 to revision 2
        COUNT  4 of 3 replicas ready: 4 ready
        COUNT  1 of 3 of revision 2 ready, 0 starting, 3 of others left
        COUNT  0 of 3 new replicas lost before it stops (max_failed_replicas)
        COUNT  4 of 4 active (target 3 + surge 1)
        COUNT  4 ready, at least 3 are kept (unavailable 0)
        COUNT  1 min 30 s of 10 min before it turns back (rollout_timeout_s)
        NEXT   replace: drains 1 of others at its next run
        NEXT   if it is not done, it turns back in 8 min 30 s at the earliest
        """,
    "progressing under HOLD": """
        STATE  deploying/progressing, for 1 min 30 s, from revision 1 to revision 2
        COUNT  3 of 3 replicas ready: 3 ready, 1 running not checked
        COUNT  0 of 3 of revision 2 ready, 0 starting, 3 of others left
        COUNT  0 of 3 new replicas lost before it stops (max_failed_replicas)
        COUNT  4 of 4 active (target 3 + surge 1)
        COUNT  3 ready, at least 3 are kept (unavailable 0)
        COUNT  1 min 30 s of 10 min before it turns back (rollout_timeout_s)
        HELD   HOLD deployment_breaker: half or more of this deployment's running routes are not ready; waits for more of them to be ready, or an operator who forces it
        HELD   HOLD no_prober: no prober is alive that trusts itself; waits for a prober to start
        NEXT   wait: waits for 1 replica of revision 2 to become ready
        NEXT   if it is not done, it turns back in 8 min 30 s at the earliest, and not while it is held
        """,
    "progressing, after a HOLD": """
        STATE  deploying/progressing, for 1 min 30 s, from revision 1 to revision 2
        COUNT  3 of 3 replicas ready: 1 provisioning warming up, 3 ready
        COUNT  0 of 3 of revision 2 ready, 1 starting, 3 of others left
        COUNT  0 of 3 new replicas lost before it stops (max_failed_replicas)
        COUNT  4 of 4 active (target 3 + surge 1)
        COUNT  3 ready, at least 3 are kept (unavailable 0)
        COUNT  1 min of 10 min before it turns back (rollout_timeout_s), 30 s of HOLD not counted
        NEXT   wait: waits for 1 replica of revision 2 to become ready
        NEXT   if it is not done, it turns back in 9 min at the earliest
        """,
    "all is in place": """
        STATE  deploying/progressing, for 1 min 30 s, from revision 1 to revision 2
        COUNT  3 of 3 replicas ready: 3 ready
        COUNT  3 of 3 of revision 2 ready, 0 starting, 0 of others left
        COUNT  0 of 3 new replicas lost before it stops (max_failed_replicas)
        COUNT  3 of 4 active (target 3 + surge 1)
        COUNT  3 ready, at least 3 are kept (unavailable 0)
        COUNT  1 min 30 s of 10 min before it turns back (rollout_timeout_s)
        NEXT   promote: all replicas are new and ready, at its next run
        NEXT   if it is not done, it turns back in 8 min 30 s at the earliest
        """,
    "external, and none is registered": """
        STATE  deploying/provisioning, for 1 min 30 s, from revision 1 to revision 2
        COUNT  3 of 3 replicas ready: 3 ready
        COUNT  0 of 3 of revision 2 ready, 0 starting, 3 of others left
        COUNT  0 of 3 new replicas lost before it stops (max_failed_replicas)
        COUNT  3 of 4 active (target 3 + surge 1)
        COUNT  3 ready, at least 3 are kept (unavailable 0)
        COUNT  1 min 30 s of 10 min before it turns back (rollout_timeout_s)
        NEXT   replace: waits for 3 to be registered: fleetpulse route register demo
        NEXT   if it is not done, it turns back in 8 min 30 s at the earliest
        """,
    "rolling back": """
        STATE  deploying/rolling back, for 1 min 30 s, back from revision 2 to revision 1
        COUNT  2 of 3 replicas ready: 2 ready, 1 running unhealthy
        COUNT  2 of 3 of revision 1 ready, 0 starting, 1 of others left
        COUNT  3 of 4 active (target 3 + surge 1)
        COUNT  2 ready, at least 3 are kept (unavailable 0)
        COUNT  1 min 30 s of 10 min before it ends as it is (rollout_timeout_s)
        NEXT   restore: starts 1 of revision 1 and drains 1 of others at its next run
        NEXT   if it is not done, it ends with what it has in 8 min 30 s at the earliest
        """,
    "blue-green, waits for its delay": """
        STATE  deploying/progressing, for 1 min 30 s, from revision 1 to revision 2
        COUNT  6 of 3 replicas ready: 6 ready
        COUNT  3 of 3 of revision 2 ready, 0 starting, 3 of others left
        COUNT  0 of 3 new replicas lost before it stops (max_failed_replicas)
        COUNT  6 of 6 active (target 3 + surge 3)
        COUNT  6 ready, at least 3 are kept (unavailable 0)
        COUNT  1 min 30 s of 2 h before it turns back (rollout_timeout_s)
        NEXT   promote_delay: all greens are ready, but not for long enough, for another 1 min
        NEXT   if it is not done, it turns back in 1 h 58 min at the earliest
        """,
    "blue-green, awaits its promotion": """
        STATE  deploying/awaiting promotion, for 1 min 30 s, from revision 1 to revision 2
        COUNT  6 of 3 replicas ready: 6 ready
        COUNT  3 of 3 of revision 2 ready, 0 starting, 3 of others left
        COUNT  0 of 3 new replicas lost before it stops (max_failed_replicas)
        COUNT  6 of 6 active (target 3 + surge 3)
        COUNT  6 ready, at least 3 are kept (unavailable 0)
        COUNT  1 min 30 s of 2 h before it turns back (rollout_timeout_s)
        NEXT   awaiting_promotion: still waits for an operator; to go on: fleetpulse rollout promote demo
        NEXT   if it is not done, it turns back in 1 h 58 min at the earliest
        """,
    "canary, in a pause": """
        STATE  deploying/progressing, for 1 min 30 s, from revision 1 to revision 2
        COUNT  6 of 3 replicas ready: 6 ready
        COUNT  3 of 3 of revision 2 ready, 0 starting, 3 of others left
        COUNT  0 of 3 new replicas lost before it stops (max_failed_replicas)
        COUNT  6 of 6 active (target 3 + surge 3)
        COUNT  6 ready, at least 3 are kept (unavailable 0)
        COUNT  1 min 30 s of 2 h before it turns back (rollout_timeout_s)
        NEXT   pause_step: the share stays as it is until its pause is over, for another 3 min 30 s
        NEXT   if it is not done, it turns back in 1 h 58 min at the earliest
        """,
    "paused": """
        STATE  deploying/progressing, for 1 min 30 s, from revision 1 to revision 2
        COUNT  3 of 3 replicas ready: 1 provisioning warming up, 3 ready
        COUNT  0 of 3 of revision 2 ready, 1 starting, 3 of others left
        COUNT  0 of 3 new replicas lost before it stops (max_failed_replicas)
        COUNT  4 of 4 active (target 3 + surge 1)
        COUNT  3 ready, at least 3 are kept (unavailable 0)
        COUNT  1 min of 10 min before it turns back (rollout_timeout_s)
        TRIED  deploying/paused (waiting, 6 times), 5 s ago: paused: 0 of 3 replicas of revision 2 ready
        NEXT   paused: an operator stopped it: nothing moves and no clock runs; to go on: fleetpulse rollout resume demo
        NEXT   if it is not done, it turns back in 9 min at the earliest, and not while it is paused
        """,
    "ready, and the ones before are kept": """
        STATE  ready, for 1 min 30 s, revision 2
        COUNT  6 of 3 replicas ready: 6 ready
        NEXT   nothing: it is as wanted
        NEXT   3 replicas of revision 1 kept for another 12 min to switch back to: fleetpulse rollout rollback demo
        """,
    "half a rollout": """
        STATE  deploying/provisioning, for 1 min 30 s, from revision 1 to revision 2
        COUNT  3 of 3 replicas ready: 3 ready
        NEXT   it has nothing to deploy, and is set back (deploying, within 30 s)
        """,
    "destroying": """
        STATE  destroying, for 1 min 30 s, revision 1
        COUNT  2 of 3 replicas ready: 2 ready
        NEXT   it is gone when its last replica has ended: 2 left
        """,
    "destroyed": """
        STATE  destroyed, for 1 min 30 s, revision 1
        COUNT  0 of 3 replicas ready: none
        NEXT   nothing: it never comes back; its name is free
        """,
}


@pytest.mark.parametrize("case", CASES)
def test_every_state_is_told_in_these_words(case: str) -> None:
    """R-16"""
    assert told(CASES[case]) == cleandoc(GOLDEN[case])


def test_every_lifecycle_is_among_them() -> None:
    assert {case.state.partition("/")[0] for case in CASES.values()} == set(Lifecycle)
