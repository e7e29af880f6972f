"""The last look before a route is taken out for good: everything it rests on, read once more.

Used by `repository`, inside the transaction that evicts and behind its fence (S14). What differs
from what was decided over takes that one eviction out of the batch; the others go on. The budget
is counted here over what every leader did, so that a change of leaders does not renew it.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from sqlalchemy import func, insert, select

from controller.db.bulk import chunks
from controller.db.session import Write
from controller.db.tables import deployments, evictions, storable
from controller.model import Deployment, DeploymentId, RouteId
from controller.route.evict import HEALTH_POLICY
from controller.route.grounds import Eviction
from controller.route.guard.budget import WINDOW_MS

PROBER_MAX: Final = 128
SEQ_MAX: Final = 2**63 - 1
"""What the columns hold."""

Pointers = tuple[str | None, str | None, str]


async def admit(write: Write, wanted: Sequence[Eviction]) -> tuple[Eviction, ...]:
    """Return those that still may happen; keeps their deployments as they are until the end."""
    pointers = await _pointers(write, {each.deployment.id for each in wanted})
    return choose(wanted, pointers, await _spent(write), now_ms=write.now_ms)


def choose(
    wanted: Sequence[Eviction],
    pointers: Mapping[DeploymentId, Pointers],
    spent: Counter[DeploymentId],
    *,
    now_ms: int,
) -> tuple[Eviction, ...]:
    """Return those whose deployment points where it did, within budget and on fresh evidence.

    `spent` are the health evictions of the last minute.
    """
    left = Counter(spent)
    admitted: list[Eviction] = []
    for each in wanted:
        if pointers.get(each.deployment.id) != pointers_of(each.deployment):
            continue
        if each.change.error_code == HEALTH_POLICY:
            if not _in_budget(each, left) or not _still_fresh(each, now_ms=now_ms):
                continue
            left[each.deployment.id] += 1
        admitted.append(each)
    return tuple(admitted)


async def record(write: Write, done: Iterable[Eviction]) -> None:
    """Write what was evicted and what was believed: the budget of every later leader."""
    rows = [
        {
            "deployment_id": each.deployment.id,
            "route_id": each.change.route.id,
            "cause": each.change.error_code.lower(),
            # As the bus has them, which bounds neither.
            "prober": storable(each.prober)[:PROBER_MAX],
            "seq": max(-SEQ_MAX, min(each.seq, SEQ_MAX)),
            "evidence_age_ms": each.age_ms + max(0, write.now_ms - each.decided_at_ms),
            "epoch": write.epoch or 0,
            "at_ms": write.now_ms,
        }
        for each in done
    ]
    if rows:
        await write.connection.execute(insert(evictions), rows)


def _in_budget(each: Eviction, spent: Counter[DeploymentId]) -> bool:
    return spent.total() < each.fleet_max and spent[each.deployment.id] < each.own_max


def _still_fresh(each: Eviction, *, now_ms: int) -> bool:
    return each.age_ms + max(0, now_ms - each.decided_at_ms) <= each.age_max_ms


def pointers_of(deployment: Deployment) -> Pointers:
    """Return what of a deployment an eviction rests on."""
    current, deploying = deployment.current, deployment.deploying
    return (
        None if current is None else current.id,
        None if deploying is None else deploying.id,
        deployment.lifecycle.value,
    )


async def _pointers(write: Write, ids: Iterable[DeploymentId]) -> dict[DeploymentId, Pointers]:
    of = deployments.c
    found: dict[DeploymentId, Pointers] = {}
    for chunk in chunks(sorted(ids)):
        query = (
            select(of.id, of.current_revision_id, of.deploying_revision_id, of.lifecycle)
            .where(of.id.in_(chunk))
            .with_for_update(of=deployments)
        )
        for deployment_id, current, deploying, lifecycle in await write.connection.execute(query):
            found[DeploymentId(deployment_id)] = current, deploying, lifecycle
    return found


async def _spent(write: Write) -> Counter[DeploymentId]:
    """Return the health evictions of the last minute, by deployment."""
    query = (
        select(evictions.c.deployment_id, func.count())
        .where(
            evictions.c.at_ms > write.now_ms - WINDOW_MS,
            evictions.c.cause == HEALTH_POLICY.lower(),
        )
        .group_by(evictions.c.deployment_id)
    )
    rows = await write.connection.execute(query)
    return Counter({DeploymentId(key): count for key, count in rows})


def lost_of(wanted: Sequence[Eviction], done: Sequence[Eviction]) -> tuple[RouteId, ...]:
    """Return the routes of those that did not happen, in order."""
    kept = {each.change.route.id for each in done}
    return tuple(each.change.route.id for each in wanted if each.change.route.id not in kept)
