"""Delivers effects outside SQL after their commit, for as long as this controller leads.

Runs beside the ticks and never inside one: a receiver that hangs costs no handler its turn.
Every effect may be delivered more than once; receivers refuse what is older than what they have,
by (epoch, version).
"""

import heapq
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

import anyio
import structlog

from controller.db import outbox
from controller.db.outbox import Backlog, Effect
from controller.db.session import Database
from controller.errors import DatabaseUnreachable
from controller.metrics import ControllerMetrics
from probe.errors import BusError

log = structlog.get_logger()

Sender = Callable[[str, int, int, str], Awaitable[None]]
"""Delivers (subject, epoch, version, payload); raises BusError to be asked again."""

RETRY_S: Final = 1.0
"""What could not be delivered is tried again this much later."""
POLL_S: Final = 5.0
"""Without a wake the table is looked at this often: what an earlier leader left is found."""
BATCH: Final = 256
"""Effects read, delivered and forgotten in one go."""
AT_ONCE: Final = 16
"""Deliveries in flight: no more than a pool of the bus has connections. So many of those that
failed before are tried in one pass, that new ones need not wait for all of them."""
SEND_WITHIN_S: Final = 2.0
"""A receiver that says nothing for so long has not received."""

_Key = tuple[int, int, int]


class Deliverer:
    """Hands every pending effect to the sender of its kind, until none is left."""

    def __init__(
        self,
        senders: Mapping[str, Sender],
        *,
        database: Database,
        metrics: ControllerMetrics,
        epoch: int,
        clock: Callable[[], float],
    ) -> None:
        """Deliver under `epoch`, the term this lives for."""
        self._senders = senders
        self._database = database
        self._metrics = metrics
        self._epoch = epoch
        self._clock = clock
        self._woken = anyio.Event()
        self._again_at: dict[_Key, float] = {}
        """Those that failed, and when they are tried again."""

    def wake(self) -> None:
        """Look at the table now: something was committed."""
        self._woken.set()

    async def run(self) -> None:
        """Deliver until cancelled.

        Raises:
            LeaseLost: if another controller leads.
        """
        while True:
            self._woken = anyio.Event()
            try:
                await self.deliver()
                pause_s = self._pause_s()
            except DatabaseUnreachable:  # the reconcile loop meets it too, and tells
                pause_s = RETRY_S
            with anyio.move_on_after(pause_s):
                await self._woken.wait()

    async def deliver(self) -> None:
        """Try what waits once, in bounded batches; what failed only when its time has come.

        Raises:
            LeaseLost: if another controller leads.
            DatabaseUnreachable: if the database does not answer.
        """
        due = self._due()
        seen: set[_Key] = set()
        after = 0
        while batch := await self._read(after):
            after = batch[-1].id
            seen.update(map(_key, batch))
            trying = [e for e in batch if _key(e) not in self._again_at or _key(e) in due]
            delivered = await self._send_all(trying)
            if delivered:
                async with self._database.write(epoch=self._epoch) as write:
                    await outbox.done(write, delivered)
        self._again_at = {key: at for key, at in self._again_at.items() if key in seen}
        self._metrics.outbox(await self._backlog() if seen else _NOTHING)

    def _due(self) -> frozenset[_Key]:
        """Return those that failed and may be tried again, longest waiting first when too many."""
        now = self._clock()
        waiting = [(at, key) for key, at in self._again_at.items() if at <= now]
        return frozenset(key for _, key in heapq.nsmallest(AT_ONCE, waiting))

    def _pause_s(self) -> float:
        return min([POLL_S, *(at - self._clock() for at in self._again_at.values())])

    async def _read(self, after: int) -> Sequence[Effect]:
        async with self._database.read() as connection:
            return await outbox.pending(connection, after=after, limit=BATCH)

    async def _backlog(self) -> Backlog:
        async with self._database.read() as connection:
            return await outbox.backlog(connection)

    async def _send_all(self, effects: Sequence[Effect]) -> list[Effect]:
        """Deliver side by side; return those that arrived."""
        delivered: list[Effect] = []
        slots = anyio.Semaphore(AT_ONCE)

        async def one(effect: Effect) -> None:
            async with slots:
                trouble = await self._send(effect)
            key = _key(effect)
            if trouble is None:
                delivered.append(effect)
                if self._again_at.pop(key, None) is not None:
                    log.info("effect_delivered_late", kind=effect.kind, subject=effect.subject)
                return
            if key not in self._again_at:
                log.warning(
                    "effect_not_delivered", kind=effect.kind, subject=effect.subject, why=trouble
                )
            self._again_at[key] = self._clock() + RETRY_S

        async with anyio.create_task_group() as group:
            for effect in effects:
                group.start_soon(one, effect)
        return delivered

    async def _send(self, effect: Effect) -> str | None:
        """Deliver one; return why it did not arrive."""
        sender = self._senders.get(effect.kind)
        if sender is None:
            return f"nothing here delivers {effect.kind!r}"
        try:
            with anyio.fail_after(SEND_WITHIN_S):
                await sender(effect.subject, effect.epoch, effect.version, effect.payload)
        except TimeoutError:
            return f"no answer within {SEND_WITHIN_S:g} s"
        except BusError as error:
            return str(error)
        except Exception as error:  # one poisoned effect never stops the others
            if _key(effect) not in self._again_at:
                log.exception("effect_failed", kind=effect.kind, subject=effect.subject)
            return f"{type(error).__name__}: {error}"
        return None


_NOTHING: Final = Backlog(count=0, oldest_age_ms=0)


def _key(effect: Effect) -> _Key:
    return effect.id, effect.epoch, effect.version
