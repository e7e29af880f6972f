"""What `explain` says of a route in each of its states, word for word: read at 3 a.m."""

# ruff: noqa: E501 - the text stands here as it is printed

from inspect import cleandoc

import pytest

from controller.explanation import Topic
from controller.model import Health, RouteStatus, Stage
from controller.route.gates import HOLD_TEXT
from controller.route.guard import HoldCause
from tests.fakes.route_scenes import CASES, entered, explain
from tests.fakes.telling import Row, told

GOLDEN = {
    "pending": """
        STATE  provisioning/pending, for 4 s
        COUNT  4 s of 30 min without the provisioner's answer before it is given up (starting_timeout_s)
        RULE   create, 4 s ago: scaling out: 2 replicas of revision 1 active, 3 wanted
        NEXT   it is handed to the provisioner (provision, within 1 min)
        NEXT   without an answer it is given up in 29 min 56 s
        """,
    "pending, and the provisioner cannot be asked": """
        STATE  provisioning/pending, for 1 min 5 s
        COUNT  1 min 5 s of 30 min without the provisioner's answer before it is given up (starting_timeout_s)
        RULE   create, 1 min 5 s ago: scaling out: 2 replicas of revision 1 active, 3 wanted
        TRIED  provision (failure, 3 times), 5 s ago: the fleet does not answer on /run/fleet.sock [ProvisionError]
        NEXT   it is handed to the provisioner (provision, within 1 min)
        NEXT   without an answer it is given up in 28 min 55 s
        """,
    "starting": """
        STATE  provisioning/starting, for 1 min 35 s
        COUNT  1 min 35 s of 30 min without an address before it is given up (starting_timeout_s)
        RULE   provision, 1 min 35 s ago: handed to the provisioner as session s-1
        NEXT   with an address it warms up, and is probed (check_starting, within 1 min)
        NEXT   without an address it is given up in 28 min 25 s
        """,
    "warming up, and failing": """
        STATE  provisioning/warming up, for 30 s, at 127.0.0.1:8000
        PROBE  failed 1 s ago by prober-1: CONNECT_REFUSED: nothing listens on the port: starting, or exited (connect 0.2 ms, first byte 1.5 ms)
        COUNT  30 s of 1 min of warming up before it is given up (initial_delay_s)
        COUNT  0 of 1 passes in a row before HEALTHY (healthy_threshold)
        RULE   check_starting, 30 s ago: running at 127.0.0.1:8000, warming up
        NEXT   it serves after the first passing probe; the next probe is due within 10 s
        NEXT   without, it is given up in 30 s at the earliest
        """,
    "warming up under HOLD": """
        STATE  provisioning/warming up, for 30 s, at 127.0.0.1:8000
        PROBE  not known, the bus cannot be read: the bus at redis://10.0.0.1:6379/0 does not answer
        COUNT  0 s of 1 min of warming up before it is given up (initial_delay_s), 30 s not counted: HOLD, or a new leader
        HELD   HOLD bus_unreachable: the bus cannot be read; waits for the bus to answer
        NEXT   it serves after the first passing probe; nobody probes it now
        NEXT   without, it is given up in 1 min at the earliest, and not while it is held
        """,
    "warming up without a check": """
        STATE  provisioning/warming up, for 30 s, at 127.0.0.1:8000
        PROBE  it has no health check: nobody probes it, and it is ready while it runs
        NEXT   it serves: there is nothing to check (check_warming_up, within 1 min)
        """,
    "healthy": """
        STATE  running, healthy, traffic active, for 50 min, at 127.0.0.1:8000
        PROBE  passed 1 s ago by prober-1: OK 200: answered as expected (connect 0.2 ms, first byte 1.5 ms)
        COUNT  0 of 3 failures in a row before UNHEALTHY (max_retries)
        RULE   check_warming_up, 50 min ago: first passing probe 3.2 s after it got its address (grace initial_delay_s 60)
        NEXT   nothing: it serves; the next probe is due within 10 s
        """,
    "healthy, but failing": """
        STATE  running, healthy, traffic active, for 50 min, at 127.0.0.1:8000
        PROBE  failed 1 s ago by prober-1: CONNECT_REFUSED: nothing listens on the port: starting, or exited
        COUNT  1 of 3 failures in a row before UNHEALTHY (max_retries)
        NEXT   it is UNHEALTHY after 2 more failures, in 5 s at the earliest, 20 s at its interval
        """,
    "healthy, and HOLD keeps it so": """
        STATE  running, healthy, traffic active, for 50 min, at 127.0.0.1:8000
        PROBE  failed 1 s ago by prober-1: CONNECT_REFUSED: nothing listens on the port: starting, or exited
        COUNT  7 of 3 failures in a row before UNHEALTHY (max_retries)
        HELD   HOLD breaker: 30 % or more of the fleet, and two routes at least, are not ready; waits for fewer to be so: look for what they share
        HELD   HOLD velocity: more than 5 routes, and 5 % of the fleet, became unhealthy within 60 s; waits for a minute without that
        NEXT   it is UNHEALTHY, once nothing holds that (classify_health, within 1 min)
        """,
    "the prober's own fault": """
        STATE  running, healthy, traffic active, for 50 min, at 127.0.0.1:8000
        PROBE  could not ask 1 s ago: LOCAL_FDS: the prober has no file descriptor left: raise its limit
        COUNT  0 of 3 failures in a row before UNHEALTHY (max_retries)
        NEXT   nothing: it serves; the next probe is due within 10 s
        """,
    "unhealthy": """
        STATE  running, unhealthy, traffic active, for 50 min, at 127.0.0.1:8000
        PROBE  failed 1 s ago by prober-1: CONNECT_REFUSED: nothing listens on the port: starting, or exited
        COUNT  0 of 1 passes in a row before HEALTHY (healthy_threshold)
        RULE   classify_health, 4 min 10 s ago: 3 probes failed in a row (limit max_retries 3), the last one CONNECT_REFUSED: nothing listens on the port: starting, or exited [CONNECT_REFUSED]
        NEXT   it is HEALTHY again after the first passing probe; the next probe is due within 10 s
        NEXT   else it is taken out for good (evict, within 1 min)
        """,
    "unhealthy, and out of traffic": """
        STATE  running, unhealthy, traffic inactive, for 50 min, at 127.0.0.1:8000
        PROBE  failed 1 s ago by prober-1: CONNECT_REFUSED: nothing listens on the port: starting, or exited
        COUNT  0 of 1 passes in a row before HEALTHY (healthy_threshold)
        RULE   classify_health, 4 min 10 s ago: 3 probes failed in a row (limit max_retries 3), the last one CONNECT_REFUSED: nothing listens on the port: starting, or exited [CONNECT_REFUSED]
        NEXT   it is HEALTHY again after the first passing probe; the next probe is due within 10 s
        NEXT   until then it gets no new requests; half of its deployment always does
        NEXT   else it is taken out for good (evict, within 1 min)
        """,
    "unhealthy, and nothing but gates": """
        STATE  running, unhealthy, traffic active, for 50 min, at 127.0.0.1:8000
        PROBE  failed 1 s ago by prober-1: CONNECT_REFUSED: nothing listens on the port: starting, or exited
        COUNT  0 of 1 passes in a row before HEALTHY (healthy_threshold)
        RULE   classify_health, 4 min 10 s ago: 3 probes failed in a row (limit max_retries 3), the last one CONNECT_REFUSED: nothing listens on the port: starting, or exited [CONNECT_REFUSED]
        HELD   HOLD deployment_breaker: half or more of this deployment's running routes are not ready; waits for more of them to be ready, or an operator who forces it
        HELD   budget: 1 of 1 evictions in its deployment and 1 of 1 in the fleet are spent this minute; waits for the oldest of them to be a minute old
        HELD   closing: the last HOLD ended 12 s ago; waits for 2 min without one
        HELD   cold start: a new leader looks for two intervals, and 30 s at least; so far 12 s; waits for that, and evidence of 95 % of the fleet
        HELD   evidence: what the prober says at this moment does not confirm it; waits for max_retries failures in a row, freshly seen
        HELD   floor: 3 replicas are ready, and 3 are kept; waits for others to become ready
        HELD   no floor: the deployment's strategy failed to tell how many replicas must stay ready; waits for another policy, or a strategy that can; the controller's log says what failed
        HELD   ramp: after a HOLD evictions begin with one at once, and double each minute; waits for its turn
        HELD   second source: only one prober, over one connection, has seen it fail; waits for another prober's word, or a second look 5 s later
        HELD   transaction: something had changed when it was to be written; waits for the next run
        NEXT   it is HEALTHY again after the first passing probe; the next probe is due within 10 s
        NEXT   else it is taken out for good, once nothing holds that (evict, within 1 min)
        """,
    "unhealthy, and HOLD": """
        STATE  running, unhealthy, traffic active, for 50 min, at 127.0.0.1:8000
        PROBE  failed 1 s ago by prober-1: CONNECT_REFUSED: nothing listens on the port: starting, or exited
        COUNT  0 of 1 passes in a row before HEALTHY (healthy_threshold)
        RULE   classify_health, 4 min 10 s ago: 3 probes failed in a row (limit max_retries 3), the last one CONNECT_REFUSED: nothing listens on the port: starting, or exited [CONNECT_REFUSED]
        HELD   HOLD coverage: fewer than 90 % of the running routes were probed within the last three intervals; waits for the probers to reach them
        NEXT   it is HEALTHY again after the first passing probe; the next probe is due within 10 s
        NEXT   else it is taken out for good, once nothing holds that (evict, within 1 min)
        """,
    "unhealthy, and the policy keeps it": """
        STATE  running, unhealthy, traffic active, for 50 min, at 127.0.0.1:8000
        PROBE  failed 1 s ago by prober-1: CONNECT_REFUSED: nothing listens on the port: starting, or exited
        COUNT  0 of 1 passes in a row before HEALTHY (healthy_threshold)
        RULE   classify_health, 4 min 10 s ago: 3 probes failed in a row (limit max_retries 3), the last one CONNECT_REFUSED: nothing listens on the port: starting, or exited [CONNECT_REFUSED]
        NEXT   it is HEALTHY again after the first passing probe; the next probe is due within 10 s
        NEXT   it stays: cleanup_target_statuses of its deployment does not list unhealthy
        """,
    "unhealthy, and run by somebody else": """
        STATE  running, unhealthy, traffic active, for 50 min, at 127.0.0.1:8000
        PROBE  failed 1 s ago by prober-1: CONNECT_REFUSED: nothing listens on the port: starting, or exited
        COUNT  0 of 1 passes in a row before HEALTHY (healthy_threshold)
        RULE   classify_health, 4 min 10 s ago: 3 probes failed in a row (limit max_retries 3), the last one CONNECT_REFUSED: nothing listens on the port: starting, or exited [CONNECT_REFUSED]
        HELD   external: somebody else runs it, so nobody would replace it; waits for its repair, or the next revision
        NEXT   it is HEALTHY again after the first passing probe; the next probe is due within 10 s
        NEXT   else it stays
        """,
    "degraded": """
        STATE  running, degraded, traffic active, for 50 min, at 127.0.0.1:8000
        PROBE  the last status is 4 min 20 s old, too old to be believed
        RULE   classify_health, 2 min 20 s ago: no fresh status for 120 s, though a prober covers its partition [STATUS_EXPIRED]
        NEXT   it is HEALTHY again after the first passing probe; the next probe is due within 10 s
        NEXT   it stays as it is: not to know is no reason to take it out
        """,
    "degraded, and nobody looks": """
        STATE  running, degraded, traffic active, for 50 min, at 127.0.0.1:8000
        PROBE  nobody looks: no living prober covers its partition 1
        HELD   HOLD coverage: fewer than 90 % of the running routes were probed within the last three intervals; waits for the probers to reach them
        HELD   HOLD no_prober: no prober is alive that trusts itself; waits for a prober to start
        NEXT   it is HEALTHY again after the first passing probe; nobody probes it now
        NEXT   it stays as it is: not to know is no reason to take it out
        """,
    "not checked yet": """
        STATE  running, not checked, traffic active, for 40 s, at 127.0.0.1:8000
        PROBE  no status on the bus, though prober-1 covers its partition
        PROBE  prober-1 is sick, so it writes nothing: it judged its own /200 as failed
        NEXT   its first verdict; nobody probes it now
        """,
    "unmanaged": """
        STATE  running, not checked, traffic active, for 50 min, at 127.0.0.1:8000
        PROBE  it has no health check: nobody probes it, and it is ready while it runs
        NEXT   nothing: it serves until it is drained, or its session ends
        """,
    "of an earlier address": """
        STATE  running, healthy, traffic active, for 40 s, at 127.0.0.1:8000
        PROBE  the status on the bus is of another session or address, and says nothing of it
        PROBE  p lacks CPU and probes 1.4 times less often
        NEXT   it is DEGRADED: no fresh status for 120 s, though a prober covers its partition (classify_health, within 1 min)
        """,
    "an orphan": """
        STATE  running, healthy, traffic active, for 40 s, at 127.0.0.1:8000
        PROBE  passed 1 s ago: OK 200: answered as expected
        COUNT  0 of 3 failures in a row before UNHEALTHY (max_retries)
        HELD   floor: 2 replicas are ready, and 3 are kept; waits for others to become ready
        NEXT   it leaves: the deployment uses revision 3, it is of 1, once nothing holds that (evict, within 1 min)
        NEXT   the next probe is due within 10 s
        """,
    "an orphan in a rollout": """
        STATE  running, healthy, traffic active, for 40 s, at 127.0.0.1:8000
        PROBE  passed 1 s ago: OK 200: answered as expected
        COUNT  0 of 3 failures in a row before UNHEALTHY (max_retries)
        NEXT   it leaves: the deployment uses revision 3 and 2, it is of 1 (evict, within 1 min)
        """,
    "of a deployment that goes": """
        STATE  running, healthy, traffic active, for 40 s, at 127.0.0.1:8000
        PROBE  passed 1 s ago: OK 200: answered as expected
        COUNT  0 of 3 failures in a row before UNHEALTHY (max_retries)
        NEXT   its deployment is deleted: it drains (destroying, within 1 min)
        """,
    "makes way at once": """
        STATE  running, healthy, traffic active, for 40 s, at 127.0.0.1:8000
        PROBE  passed 1 s ago: OK 200: answered as expected
        COUNT  0 of 3 failures in a row before UNHEALTHY (max_retries)
        NEXT   it drains: makes way for revision 2: 4 are ready, at least 3 stay so (3 - unavailable 0) (deploying, within 30 s)
        """,
    "makes way later": """
        STATE  running, healthy, traffic active, for 40 s, at 127.0.0.1:8000
        PROBE  passed 1 s ago: OK 200: answered as expected
        COUNT  0 of 3 failures in a row before UNHEALTHY (max_retries)
        NEXT   it makes way for revision 2 in its rollout: fleetpulse explain demo
        NEXT   the next probe is due within 10 s
        """,
    "without traffic in a rollout": """
        STATE  running, healthy, traffic inactive, for 40 s, at 127.0.0.1:8000
        PROBE  passed 1 s ago: OK 200: answered as expected
        COUNT  0 of 3 failures in a row before UNHEALTHY (max_retries)
        NEXT   its rollout gives it traffic when it is time: fleetpulse explain demo
        NEXT   the next probe is due within 10 s
        """,
    "degraded, and failing": """
        STATE  running, degraded, traffic active, for 50 min, at 127.0.0.1:8000
        PROBE  failed 1 s ago by prober-1: CONNECT_REFUSED: nothing listens on the port: starting, or exited
        COUNT  1 of 3 failures in a row before UNHEALTHY (max_retries)
        COUNT  0 of 1 passes in a row before HEALTHY (healthy_threshold)
        NEXT   it is UNHEALTHY after 2 more failures, in 5 s at the earliest, 20 s at its interval
        NEXT   it is HEALTHY again after the first passing probe; the next probe is due within 10 s
        """,
    "warming up, and a HOLD was": """
        STATE  provisioning/warming up, for 1 min 40 s, at 127.0.0.1:8000
        PROBE  failed 1 s ago by prober-1: CONNECT_REFUSED: nothing listens on the port: starting, or exited
        COUNT  20 s of 1 min of warming up before it is given up (initial_delay_s), 1 min 20 s not counted: HOLD, or a new leader
        COUNT  0 of 1 passes in a row before HEALTHY (healthy_threshold)
        NEXT   it serves after the first passing probe; the next probe is due within 10 s
        NEXT   without, it is given up in 40 s at the earliest
        """,
    "draining": """
        STATE  terminating/draining, for 2 s, at 127.0.0.1:8000
        COUNT  2 s of 1 min for proxies to be told before it goes on all the same (unregister_timeout_s)
        RULE   evict, 2 s ago: unhealthy, which cleanup_target_statuses of demo lists; at most 1 a minute here and 1 in the fleet, ready floor 3 [HEALTH_POLICY]
        NEXT   once proxies are told, it gets its grace period (drain, within 30 s)
        NEXT   if they cannot be told, it goes on in 58 s
        """,
    "cooling down": """
        STATE  terminating/cooling down, for 12 s, at 127.0.0.1:8000
        COUNT  12 s of 30 s for requests in flight before its session is stopped (termination_grace_s)
        NEXT   its session is stopped in 18 s, or up to 30 s later (terminate)
        """,
    "terminated": """
        STATE  terminated, for 2 h 5 min, at 127.0.0.1:8000
        RULE   terminate, 2 h 5 min ago: session stopped
        NEXT   nothing: it never comes back; another one is started while fewer than 3 are active
        """,
    "terminated, and run by somebody else": """
        STATE  terminated, for 2 h 5 min, at 127.0.0.1:8000
        NEXT   nothing: it never comes back; for another one: fleetpulse route register demo
        """,
    "failed to start": """
        STATE  failed to start, for 1 min 30 s
        RULE   provision, 1 min 30 s ago: the provisioner refused: no such image [PROVISION_REFUSED]
        NEXT   nothing: it never comes back, and its deployment is gone or going
        """,
}


@pytest.mark.parametrize("case", CASES)
def test_every_state_is_told_in_these_words(case: str) -> None:
    """R-55"""
    assert told(CASES[case]) == cleandoc(GOLDEN[case])


def test_every_state_a_route_can_have_is_among_them() -> None:
    told_of = {case.state.partition(",")[0].replace(" ", "_") for case in CASES.values()}
    stages = {
        RouteStatus.PROVISIONING: (Stage.PENDING, Stage.STARTING, Stage.WARMING_UP),
        RouteStatus.TERMINATING: (Stage.DRAINING, Stage.COOLING_DOWN),
    }
    for status in RouteStatus:
        for stage in stages.get(status, (None,)):
            assert (status.value if stage is None else f"{status}/{stage}") in told_of
    healths = {case.state.split(", ")[1] for case in CASES.values() if "running" in case.state}
    assert healths == {health.value.replace("_", " ") for health in Health}


def test_every_cause_to_hold_says_what_ends_it() -> None:
    assert set(HOLD_TEXT) == set(HoldCause)


def test_facts_say_what_the_sentences_say() -> None:
    case = CASES["unhealthy, and nothing but gates"]
    assert [line.topic for line in case.lines] == sorted(
        (line.topic for line in case.lines), key=list(Topic).index
    )
    assert case.probe is not None
    assert (case.probe.reason, case.probe.prober) == ("CONNECT_REFUSED", "prober-1")
    assert {gate.name for gate in case.gates} >= {"budget", "evidence", "second source"}
    (failing,) = CASES["healthy, but failing"].next
    assert failing.within_s == 5.0


def test_what_a_replica_said_stays_on_one_line() -> None:
    row = Row(message="first\x1b[2Jline\nsecond line")
    (rule,) = [line for line in explain(entered(1), history=[row]).lines if line.topic == "rule"]
    assert rule.text.isprintable()
