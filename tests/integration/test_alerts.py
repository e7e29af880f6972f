"""Every alert fires for its fault, for nothing else, and not before its time."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import pytest
import yaml

from tests.fakes.prometheus import promtool

RULES: Final = Path(__file__).parents[2] / "grafana" / "rules.yml"
NAMES: Final = frozenset(
    rule["alert"]
    for group in yaml.safe_load(RULES.read_bytes())["groups"]
    for rule in group["rules"]
    if "alert" in rule
)

STEP_S: Final = 15
BREAK: Final = 40
"""Samples before the fault: 10 minutes."""
LENGTH: Final = 120
AFTER: Final = LENGTH - BREAK - 1

P: Final = 'job="prober", instance="p1"'
C: Final = 'job="controller", instance="c1"'
CHAT: Final = 'deployment="chat"'


def stays(value: float) -> str:
    return f"{value}x{LENGTH}"


def grows(step: int) -> str:
    return f"0+{step}x{LENGTH}"


DAY_S: Final = 86_400


def turns(before: float, after: float) -> str:
    return f"{before}x{BREAK} {after}x{AFTER}"


def stalls(step: int) -> str:
    """Grow, then not."""
    return f"0+{step}x{BREAK} {step * BREAK}x{AFTER}"


def breaks_out(step: int) -> str:
    """Stay 0, then grow."""
    return f"0x{BREAK} 0+{step}x{AFTER}"


def ends(value: float) -> str:
    return f"{value}x{BREAK} stale"


# Ten targets at 10 s, all well: 15 probes in every 15 s.
HEALTHY: Final[Mapping[str, str]] = {
    f"partitions_owned{{{P}}}": stays(64),
    f"targets_adopted{{{P}}}": stays(0),
    f"workers{{{P}}}": stays(2),
    f"workers_reporting{{{P}}}": stays(2),
    f"bus_up{{{P}}}": stays(1),
    f"prober_sick{{{P}}}": stays(0),
    f"prober_full{{{P}}}": stays(0),
    f"network_cut_off{{{P}}}": stays(0),
    f"interval_stretch_ratio{{{P}}}": stays(1),
    f'targets{{{P}, {CHAT}, state="healthy"}}': stays(10),
    f'targets{{{P}, {CHAT}, state="unhealthy"}}': stays(0),
    f'targets{{{P}, {CHAT}, state="unknown"}}': stays(0),
    f"targets_overdue{{{P}, {CHAT}}}": stays(0),
    f"certificate_expiry_timestamp_seconds{{{P}, {CHAT}}}": stays(90 * DAY_S),
    f'probes_total{{{P}, {CHAT}, outcome="passed"}}': grows(15),
    f'schedule_lag_seconds_bucket{{{P}, le="0.02"}}': grows(15),
    f'schedule_lag_seconds_bucket{{{P}, le="1.0"}}': grows(15),
    f'schedule_lag_seconds_bucket{{{P}, le="+Inf"}}': grows(15),
    f'probes_skipped_total{{{P}, cause="late"}}': stays(0),
    f'probes_skipped_total{{{P}, cause="overlap"}}': grows(1),
    f'probe_failures_total{{{P}, reason="POLICY_DENIED"}}': stays(0),
    f'probe_failures_total{{{P}, reason="LOCAL_FDS"}}': stays(0),
    f'probe_failures_total{{{P}, reason="CONNECT_REFUSED"}}': grows(1),
    f"leader{{{C}}}": stays(1),
    f'incident_active{{{C}, kind="bus_unreachable"}}': stays(0),
    f'incident_active{{{C}, kind="breaker"}}': stays(0),
    f"database_errors_total{{{C}}}": stays(0),
    f'invariant_violations_total{{{C}, invariant="I1_ready_floor"}}': stays(0),
    f'reconcile_last_success_timestamp_seconds{{{C}, handler="evict"}}': grows(STEP_S),
    f'incident_active{{{C}, kind="publication_refused"}}': stays(0),
    f'incident_active{{{C}, kind="deployment_unreadable"}}': stays(0),
    f'publishes_total{{{C}, outcome="delivered"}}': grows(1),
    f'publishes_total{{{C}, outcome="failed"}}': stays(0),
    f"outbox_oldest_age_seconds{{{C}}}": stays(0),
    f"leader_epoch{{{C}}}": stays(7),
    f"replacements_delayed_total{{{C}}}": stays(0),
    f'reconcile_seconds_bucket{{{C}, handler="evict", le="0.1"}}': grows(1),
    f'reconcile_seconds_bucket{{{C}, handler="evict", le="10.0"}}': grows(1),
    f'reconcile_seconds_bucket{{{C}, handler="evict", le="+Inf"}}': grows(1),
    f"replicas_wanted{{{C}, {CHAT}}}": stays(10),
    f'routes{{{C}, {CHAT}, state="ready"}}': stays(10),
}


class Story(NamedTuple):
    what: str
    after_min: float
    """Minutes since the fault began."""
    fires: set[str]
    changes: Mapping[str, str]


def without(prefix: str) -> dict[str, str]:
    """End every series of one daemon."""
    return {
        name: f"{s.split('x')[0]}x{BREAK} stale" for name, s in HEALTHY.items() if prefix in name
    }


OWNED, WORKERS = f"partitions_owned{{{P}}}", f"workers_reporting{{{P}}}"
OVERDUE = f"targets_overdue{{{P}, {CHAT}}}"
CERTIFICATE = f"certificate_expiry_timestamp_seconds{{{P}, {CHAT}}}"
BUS, BUS_AWAY = f"bus_up{{{P}}}", f'incident_active{{{C}, kind="bus_unreachable"}}'
READY, REPLICAS = f'routes{{{C}, {CHAT}, state="ready"}}', f"replicas_wanted{{{C}, {CHAT}}}"
DEADLINE = f"rollout_deadline_timestamp_seconds{{{C}, {CHAT}}}"
STARTED = f"rollout_started_timestamp_seconds{{{C}, {CHAT}}}"
WAITS = f'rollout_stands{{{C}, {CHAT}, cause="paused"}}'
OUTBOX, EPOCH = f"outbox_oldest_age_seconds{{{C}}}", f"leader_epoch{{{C}}}"
DELAYED = f"replacements_delayed_total{{{C}}}"
BLOCKED = f'evictions_blocked_total{{{C}, cause="budget"}}'


def rollout(*, lasts_s: int) -> dict[str, str]:
    """Begin a rollout when the fault would begin."""
    began_s = BREAK * STEP_S
    return {
        STARTED: f"_x{BREAK} {began_s}x{AFTER}",
        DEADLINE: f"_x{BREAK} {began_s + lasts_s}x{AFTER}",
    }


STORIES: Final = (
    Story("all is well", 15, set(), {}),
    Story("no prober for 30 s", 0.5, set(), without(P)),
    Story("no prober", 2, {"FleetpulseNoProber"}, without(P)),
    Story("partitions are on their way", 1, set(), {OWNED: turns(64, 48)}),
    Story("a shard is gone", 3, {"FleetpulsePartitionsNotCovered"}, {OWNED: turns(64, 48)}),
    Story(
        "a prober neglects what it owns",
        4,
        {"FleetpulseTargetsNeglected"},
        {f"targets_adopted{{{P}}}": turns(0, 10)},
    ),
    Story("a worker is restarted", 1, set(), {WORKERS: turns(2, 1)}),
    Story("a worker does not come back", 3, {"FleetpulseWorkersMissing"}, {WORKERS: turns(2, 1)}),
    Story("a target is late for a moment", 0.5, set(), {OVERDUE: turns(0, 1)}),
    Story("a target is never visited", 2, {"FleetpulseTargetsNotVisited"}, {OVERDUE: turns(0, 1)}),
    Story(
        "half of a deployment fails",
        6,
        {"FleetpulseDeploymentUnhealthy"},
        {
            f'targets{{{P}, {CHAT}, state="healthy"}}': turns(10, 5),
            f'targets{{{P}, {CHAT}, state="unhealthy"}}': turns(0, 5),
        },
    ),
    Story("a certificate with time", 20, set(), {CERTIFICATE: turns(90 * DAY_S, 15 * DAY_S)}),
    Story(
        "a certificate ends next week",
        20,
        {"FleetpulseCertificateEnds"},
        {CERTIFICATE: turns(90 * DAY_S, 7 * DAY_S)},
    ),
    Story(
        "a certificate ends tomorrow",
        20,
        {"FleetpulseCertificateEnds", "FleetpulseCertificateEndsSoon"},
        {CERTIFICATE: turns(90 * DAY_S, DAY_S)},
    ),
    Story("replicas are missing for a while", 10, set(), {READY: turns(10, 9)}),
    Story("replicas are missing", 16, {"FleetpulseReplicasMissing"}, {READY: turns(10, 9)}),
    Story("no replica is ready", 16, {"FleetpulseReplicasMissing"}, {READY: ends(10)}),
    Story("scaled to nothing", 16, set(), {READY: ends(10), REPLICAS: turns(10, 0)}),
    Story(
        "probes start late",
        11,
        {"FleetpulseProberCannotKeepUp"},
        {f'schedule_lag_seconds_bucket{{{P}, le="0.02"}}': stalls(15)},
    ),
    Story(
        "rounds are skipped",
        6,
        {"FleetpulseProberCannotKeepUp"},
        {f'probes_skipped_total{{{P}, cause="late"}}': breaks_out(1)},
    ),
    Story(
        "no file descriptors",
        6,
        {"FleetpulseProberImpaired"},
        {f'probe_failures_total{{{P}, reason="LOCAL_FDS"}}': breaks_out(3)},
    ),
    Story(
        "the prober misjudges itself",
        2,
        {"FleetpulseProberSick"},
        {f"prober_sick{{{P}}}": turns(0, 1)},
    ),
    Story(
        "the prober's own network is gone",
        2,
        {"FleetpulseNetworkCutOff"},
        {f"network_cut_off{{{P}}}": turns(0, 1)},
    ),
    Story(
        "intervals are stretched for a while",
        4,
        set(),
        {f"interval_stretch_ratio{{{P}}}": turns(1, 1.4)},
    ),
    Story(
        "intervals are stretched",
        6,
        {"FleetpulseProberStretched"},
        {f"interval_stretch_ratio{{{P}}}": turns(1, 1.4)},
    ),
    Story(
        "intervals cannot be stretched any further",
        2,
        {"FleetpulseProberFull"},
        {f"prober_full{{{P}}}": turns(0, 1)},
    ),
    Story(
        "addresses that are not allowed",
        3,
        {"FleetpulsePolicyDenied"},
        {f'probe_failures_total{{{P}, reason="POLICY_DENIED"}}': breaks_out(1)},
    ),
    Story(
        "entries that do not decode",
        3,
        {"FleetpulseTargetsRejected"},
        {f'targets_rejected_total{{{P}, reason="malformed"}}': f"_x{BREAK} 1+1x{AFTER}"},
    ),
    Story("the bus is away for 30 s", 0.5, set(), {BUS: turns(1, 0)}),
    Story("the prober has no bus", 2, {"FleetpulseBusAway"}, {BUS: turns(1, 0)}),
    Story(
        "the controller has no bus",
        4,
        {"FleetpulseBusAway", "FleetpulseHold"},
        {BUS_AWAY: turns(0, 1)},
    ),
    Story(
        "HOLD while a restart settles",
        2,
        set(),
        {f'incident_active{{{C}, kind="breaker"}}': turns(0, 1)},
    ),
    Story("HOLD", 4, {"FleetpulseHold"}, {f'incident_active{{{C}, kind="breaker"}}': turns(0, 1)}),
    Story("nobody leads", 2, {"FleetpulseNoLeader"}, {f"leader{{{C}}}": turns(1, 0)}),
    Story("no controller", 2, {"FleetpulseNoLeader"}, without(C)),
    Story(
        "no database",
        4,
        {"FleetpulseDatabaseAway"},
        {f"database_errors_total{{{C}}}": breaks_out(7)},
    ),
    Story(
        "a table shrank without a cause",
        3,
        {"FleetpulsePublicationRefused"},
        {f'incident_active{{{C}, kind="publication_refused"}}': turns(0, 1)},
    ),
    Story(
        "a row of a deployment cannot be read",
        4,
        {"FleetpulseDeploymentUnreadable"},
        {f'incident_active{{{C}, kind="deployment_unreadable"}}': turns(0, 1)},
    ),
    Story(
        "proxies cannot be told",
        6,
        {"FleetpulsePublishesFail"},
        {f'publishes_total{{{C}, outcome="failed"}}': breaks_out(1)},
    ),
    Story("an effect waits for a while", 1, set(), {OUTBOX: turns(0, 30)}),
    Story("an effect is stuck", 3, {"FleetpulseOutboxStuck"}, {OUTBOX: turns(0, 90)}),
    Story("a takeover", 6, set(), {EPOCH: turns(7, 8)}),
    Story("takeover after takeover", 6, {"FleetpulseTakeovers"}, {EPOCH: turns(7, 11)}),
    Story(
        "a handler is slow",
        16,
        {"FleetpulseReconcileSlow"},
        {f'reconcile_seconds_bucket{{{C}, handler="evict", le="0.1"}}': stalls(1)},
    ),
    Story("a second attempt", 1, set(), {DELAYED: turns(0, 1)}),
    Story("a crash loop", 6, {"FleetpulseCrashLoop"}, {DELAYED: breaks_out(1)}),
    Story(
        "an invariant is broken once",
        1,
        {"FleetpulseInvariantViolated"},
        {f'invariant_violations_total{{{C}, invariant="I1_ready_floor"}}': turns(0, 1)},
    ),
    Story(
        "a handler stands still",
        6,
        {"FleetpulseReconcileStuck"},
        {f'reconcile_last_success_timestamp_seconds{{{C}, handler="evict"}}': stalls(STEP_S)},
    ),
    Story(
        "a poisoned deployment",
        12,
        {"FleetpulseReconcileFails"},
        {f'reconcile_failures_total{{{C}, handler="deploying"}}': f"_x{BREAK} 1+1x{AFTER}"},
    ),
    Story("a rollout with time", 5, set(), rollout(lasts_s=7200)),
    Story("a short rollout with time", 1, set(), rollout(lasts_s=300)),
    Story("a rollout near its end", 19, {"FleetpulseRolloutNearDeadline"}, rollout(lasts_s=1100)),
    Story("a rollout waits for a while", 10, set(), {WAITS: turns(0, 1)}),
    Story("a rollout waits for a person", 17, {"FleetpulseRolloutWaits"}, {WAITS: turns(0, 1)}),
    Story("a budget that is spent for a while", 10, set(), {BLOCKED: f"_x{BREAK} 1+1x{AFTER}"}),
    Story(
        "a floor that is reached",
        17,
        {"FleetpulseEvictionsBlocked"},
        {BLOCKED: f"_x{BREAK} 1+1x{AFTER}"},
    ),
)


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.what)
def test_a_fault_raises_its_alert_and_no_other(story: Story, tmp_path: Path) -> None:
    """R-65 among them."""
    series = [
        {"series": f"fleetpulse_{name}", "values": values}
        for name, values in {**HEALTHY, **story.changes}.items()
    ]
    firing = [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in sorted(story.fires)]
    question = {
        "expr": 'group by (alertname) (ALERTS{alertstate="firing"})',
        "eval_time": f"{BREAK * STEP_S + int(story.after_min * 60)}s",
        "exp_samples": firing,
    }
    test = {"interval": f"{STEP_S}s", "input_series": series, "promql_expr_test": [question]}
    file = tmp_path / "story.yml"  # JSON is YAML
    file.write_bytes(msgspec.json.encode({"rule_files": [str(RULES)], "tests": [test]}))
    promtool("test", "rules", file)


def test_every_alert_has_a_story() -> None:
    assert set().union(*(story.fires for story in STORIES)) == NAMES
