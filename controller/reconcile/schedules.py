"""When each handler runs, and what wakes it: one table, filled with the settings' periods.

Used by the coordinator, which makes the handlers. A handler that changed something marks what it
produces; whoever consumes that runs soon, and not at its next long period (R-49).
"""

from typing import Final

from controller.reconcile.handler import Mark, Schedule
from controller.settings import Settings

WAKES: Final = {
    "provision": ({Mark.ANSWERED, Mark.PENDING}, {Mark.STARTING, Mark.READINESS}),
    "check_starting": (
        {Mark.ANSWERED, Mark.STARTING},
        {Mark.WARMING_UP, Mark.TARGETS, Mark.DRAINING},
    ),
    "check_warming_up": ({Mark.WARMING_UP, Mark.HEALTH}, {Mark.READINESS, Mark.DRAINING}),
    "check_running": ({Mark.ANSWERED, Mark.HEALTH}, {Mark.READINESS, Mark.DRAINING}),
    "classify_health": ({Mark.HEALTH}, {Mark.READINESS}),
    "second_opinion": ({Mark.HEALTH, Mark.READINESS}, set()),
    "record_hold": ({Mark.DOUBT}, set()),
    "evict": (set(), {Mark.READINESS, Mark.DRAINING}),
    "deploying": (
        {Mark.DEPLOYMENTS, Mark.READINESS},
        {Mark.PENDING, Mark.DRAINING, Mark.DEPLOYMENTS},
    ),
    "check_replicas": (
        {Mark.DEPLOYMENTS, Mark.READINESS},
        {Mark.PENDING, Mark.DRAINING},
    ),
    "destroying": ({Mark.DEPLOYMENTS, Mark.READINESS}, {Mark.DRAINING}),
    "sync_probe_targets": ({Mark.TARGETS, Mark.DEPLOYMENTS}, set()),
    "sync_proxy": (
        {Mark.READINESS, Mark.DRAINING, Mark.DEPLOYMENTS, Mark.TARGETS},
        set(),
    ),
    "audit_history": (set(), set()),
    "prune": (set(), set()),
    "drain": (
        {Mark.DRAINING, Mark.UNREGISTERED, Mark.DEPLOYMENTS},
        {Mark.TARGETS, Mark.COOLING_DOWN},
    ),
    "terminate": ({Mark.ANSWERED, Mark.COOLING_DOWN}, {Mark.READINESS}),
}
"""What wakes each handler, and what it wakes when it changed something (R-49)."""


def schedule_of(settings: Settings, handler: str) -> Schedule:
    """Return when a handler runs, and what wakes it."""
    period = settings.period(handler)
    consumes, produces = WAKES[handler]
    return Schedule(
        period_s=period.long_s,
        on_mark_s=period.on_mark_s,
        first_after_s=period.first_after_s,
        consumes=frozenset(consumes),
        produces=frozenset(produces),
    )
