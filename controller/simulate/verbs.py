"""What operators ask for, written into rows in memory as the service writes it into SQL.

Each verb is one transaction. Refusals are the service's: a Conflict is an answer, not an error of
the simulation.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from controller.cycles import still_ms
from controller.db.events import asked
from controller.errors import Conflict, NotFound
from controller.model import (
    Deployment,
    DeploymentId,
    Health,
    Lifecycle,
    Outcome,
    Policy,
    Revision,
    RevisionId,
    RevisionSpec,
    Rollout,
    RolloutId,
    SubStep,
)
from controller.rollout.resume import resumed
from controller.simulate.rows import Rows
from controller.simulate.transaction import Write

_GOING = (Lifecycle.DESTROYING, Lifecycle.DESTROYED)
_FAILED = (Outcome.FAILED, Outcome.ABORTED, Outcome.EXPIRED, Outcome.ROLLED_BACK)
_BY = "the scenario"


class MemoryVerbs:
    """The verbs, on `Rows`; `fresh` makes ids."""

    def __init__(self, rows: Rows, fresh: Callable[[], str]) -> None:
        self._rows = rows
        self._fresh = fresh

    def apply(self, name: str, *, replicas: int, policy: Policy) -> Deployment:
        """Create a deployment, or change its count and policy."""
        with self._rows.write(epoch=None) as write:
            seen = self._rows.deployment(name)
            if seen is not None:
                _refuse_going(seen)
                after = write.move(seen, replicas=replicas, policy=policy, desired_replicas=None)
                _record(write, seen, "apply", f"{_BY} changed it")
                return after
            made = Deployment(
                id=DeploymentId(self._fresh()),
                name=name,
                lifecycle=Lifecycle.PENDING,
                sub_step=None,
                replicas=replicas,
                desired_replicas=None,
                policy=policy,
                cleanup_target_statuses=frozenset({Health.UNHEALTHY}),
                current=None,
                deploying=None,
                rollout=None,
                version=1,
                phase_entered_at_ms=write.now_ms,
            )
            write.tables.deployments[made.id] = made
            _record(write, made, "apply", f"{_BY} created it")
        return made

    def add_revision(self, name: str, spec: RevisionSpec) -> Revision:
        """Add a revision under the next number."""
        with self._rows.write(epoch=None) as write:
            seen = self._changeable(name)
            known = write.tables.revisions.get(seen.id, ())
            revision = Revision(
                id=RevisionId(self._fresh()),
                deployment_id=seen.id,
                number=len(known) + 1,
                spec=spec,
                definition=None,
            )
            write.tables.revisions[seen.id] = (*known, revision)
            _record(write, seen, "add_revision", f"{_BY} added revision {revision.number}")
        return revision

    def activate(
        self,
        name: str,
        revision: Revision,
        *,
        category: str = "activate",
        promotes: bool = False,
    ) -> Rollout:
        """Begin a rollout of `revision`; one in flight ends as SUPERSEDED in the same moment."""
        with self._rows.write(epoch=None) as write:
            seen = self._changeable(name)
            _refuse_pointless(seen, revision)
            message = f"{_BY} asked to {category} revision {revision.number}"
            if seen.rollout is not None:
                write.end_rollout(
                    seen.rollout.id, outcome=Outcome.SUPERSEDED, message=f"superseded: {message}"
                )
            rollout = self._rollout(write, seen, revision, promotes=promotes)
            write.tables.rollouts[rollout.id] = rollout
            write.move(
                seen,
                enters_phase=True,
                lifecycle=Lifecycle.DEPLOYING,
                sub_step=SubStep.PROVISIONING,
                deploying=revision,
                rollout=rollout,
                kept=None,
                kept_until_ms=None,
            )
            to = f"{Lifecycle.DEPLOYING}/{SubStep.PROVISIONING}"
            _record(write, seen, category, message, to_state=to, rollout=rollout)
        return rollout

    def _rollout(
        self, write: Write, seen: Deployment, revision: Revision, *, promotes: bool
    ) -> Rollout:
        return Rollout(
            id=RolloutId(self._fresh()),
            deployment_id=seen.id,
            revision_id=revision.id,
            from_revision_id=None if seen.current is None else seen.current.id,
            policy=seen.policy,
            started_at_ms=write.now_ms,
            deadline_at_ms=write.now_ms + int(seen.policy.rollout_timeout_s * 1000),
            actor=_BY,
            promote_asked=promotes,
        )

    def scale(self, name: str, replicas: int) -> None:
        """Want another count of replicas."""
        with self._rows.write(epoch=None) as write:
            seen = self._changeable(name)
            if seen.target_count != replicas:
                write.move(seen, desired_replicas=replicas)
                what = f"{_BY} scaled from {seen.target_count} to {replicas}"
                _record(write, seen, "scale", what)

    def abort(self, name: str) -> None:
        """Turn the rollout in flight back."""
        with self._rows.write(epoch=None) as write:
            seen = self._changeable(name)
            if seen.rollout is None:
                raise Conflict(f"deployment {name!r} has no rollout in flight to abort")
            if seen.sub_step is SubStep.ROLLING_BACK:
                return
            message = f"{_BY} aborted it"
            if seen.current is None:
                _destroy(write, seen, "abort", message)
                return
            known = write.tables.rollouts[seen.rollout.id]
            asked = replace(known, outcome=Outcome.ABORTED, message=message, paused_at_ms=None)
            write.tables.rollouts[known.id] = asked
            write.move(seen, enters_phase=True, sub_step=SubStep.ROLLING_BACK)
            to = f"{Lifecycle.DEPLOYING}/{SubStep.ROLLING_BACK}"
            _record(write, seen, "abort", message, to_state=to)

    def pause(self, name: str) -> None:
        """Stop a rollout where it is, and its clocks with it."""
        with self._rows.write(epoch=None) as write:
            seen, rollout = self._in_flight(name)
            if seen.sub_step is SubStep.ROLLING_BACK:
                raise Conflict(f"deployment {name!r} is rolling back, which has to end")
            if rollout.paused_at_ms is None:
                write.tables.rollouts[rollout.id] = replace(rollout, paused_at_ms=write.now_ms)
                write.move(seen)
                _record(write, seen, "pause", f"{_BY} paused the rollout")

    def resume(self, name: str) -> None:
        """Let a paused rollout go on, with the time for it and for its phase that it had."""
        with self._rows.write(epoch=None) as write:
            seen, rollout = self._in_flight(name)
            if rollout.paused_at_ms is None:
                return
            still = partial(still_ms, write.tables.holds, seen.id)
            clocks = resumed(seen, rollout, write.now_ms, still=still)
            write.tables.rollouts[rollout.id] = replace(
                rollout, paused_at_ms=None, deadline_at_ms=clocks.deadline_at_ms
            )
            write.move(seen, phase_entered_at_ms=clocks.phase_entered_at_ms)
            _record(write, seen, "resume", f"{_BY} resumed the rollout")

    def promote(self, name: str) -> None:
        """Say that a rollout may be promoted; its rules do it when all is ready."""
        with self._rows.write(epoch=None) as write:
            seen, rollout = self._in_flight(name)
            if seen.sub_step is not SubStep.AWAITING_PROMOTION or rollout.paused_at_ms is not None:
                raise Conflict(f"deployment {name!r} has nothing to promote now")
            if not rollout.promote_asked:
                write.tables.rollouts[rollout.id] = replace(rollout, promote_asked=True)
                write.move(seen)
                _record(write, seen, "promote", f"{_BY} promoted it")

    def retry(self, name: str) -> None:
        """Begin anew what the newest rollout did not bring about."""
        seen, newest = self._changeable(name), self._newest(name)
        back = seen.sub_step is SubStep.ROLLING_BACK
        if newest is None or (not back and newest.outcome not in _FAILED):
            raise Conflict(f"deployment {name!r} has no rollout to retry")
        self.activate(name, self._revision(seen, newest.revision_id), category="retry")

    def rollback(self, name: str) -> None:
        """Go back: abort the rollout in flight; at rest begin one to what served before."""
        seen = self._changeable(name)
        if seen.rollout is not None:
            self.abort(name)
            return
        made = [
            each
            for each in self._rows.tables.rollouts.values()
            if each.deployment_id == seen.id and each.outcome is Outcome.PROMOTED
        ]
        before = seen.kept.id if seen.kept else made[-1].from_revision_id if made else None
        if before is None or seen.lifecycle is not Lifecycle.READY:
            raise Conflict(f"deployment {name!r} has no revision that served before")
        revision = self._revision(seen, before)
        self.activate(name, revision, category="rollback", promotes=True)

    def _in_flight(self, name: str) -> tuple[Deployment, Rollout]:
        seen = self._changeable(name)
        if seen.rollout is None:
            raise Conflict(f"deployment {name!r} has no rollout in flight")
        return seen, seen.rollout

    def _newest(self, name: str) -> Rollout | None:
        seen = self._changeable(name)
        mine = [r for r in self._rows.tables.rollouts.values() if r.deployment_id == seen.id]
        return mine[-1] if mine else None

    def _revision(self, seen: Deployment, wanted: str) -> Revision:
        return next(r for r in self._rows.tables.revisions[seen.id] if r.id == wanted)

    def delete(self, name: str) -> None:
        """Let a deployment go."""
        with self._rows.write(epoch=None) as write:
            seen = self._rows.deployment(name)
            if seen is None:
                raise NotFound(f"there is no deployment {name!r}")
            if seen.lifecycle is not Lifecycle.DESTROYING:
                _destroy(write, seen, "delete", f"{_BY} deleted it")

    def _changeable(self, name: str) -> Deployment:
        seen = self._rows.deployment(name)
        if seen is None:
            raise NotFound(f"there is no deployment {name!r}")
        _refuse_going(seen)
        return seen


def _refuse_going(seen: Deployment) -> None:
    if seen.lifecycle in _GOING:
        raise Conflict(f"deployment {seen.name!r} is being deleted; wait until it is gone")


def _refuse_pointless(seen: Deployment, revision: Revision) -> None:
    if seen.current is not None and seen.current.id == revision.id:
        raise Conflict(f"revision {revision.number} of {seen.name!r} is current already")
    on_its_way = seen.deploying is not None and seen.deploying.id == revision.id
    if on_its_way and seen.sub_step is not SubStep.ROLLING_BACK:
        raise Conflict(f"revision {revision.number} of {seen.name!r} is on its way already")


def _destroy(write: Write, seen: Deployment, category: str, message: str) -> None:
    if seen.rollout is not None:
        write.end_rollout(seen.rollout.id, outcome=Outcome.ABORTED, message=message)
    write.move(
        seen,
        enters_phase=True,
        lifecycle=Lifecycle.DESTROYING,
        sub_step=None,
        deploying=None,
        rollout=None,
        kept=None,
        kept_until_ms=None,
    )
    _record(write, seen, category, message, to_state=Lifecycle.DESTROYING.value)


def _record(
    write: Write,
    seen: Deployment,
    category: str,
    message: str,
    *,
    to_state: str | None = None,
    rollout: Rollout | None = None,
) -> None:
    """Write what a person did to a deployment."""
    event = asked(seen, category=category, message=message, to_state=to_state, rollout=rollout)
    write.write_events([event])
