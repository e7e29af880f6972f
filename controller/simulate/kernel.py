"""Virtual time: coroutines that wait for each other in an order that a seed decides.

No event loop of anybody's: what runs here awaits nothing but `turn`. So a whole fleet can be
stopped at any await, and one seed gives one course of events, byte for byte.
"""

import heapq
from collections.abc import Coroutine, Generator
from random import Random
from typing import Any, Final

_LATENCY_S: Final = 0.02
"""What one exchange with a database or a bus takes at most; less than any period."""


class _Turn:
    """Gives way to others for so many virtual seconds."""

    def __init__(self, for_s: float) -> None:
        self._for_s = for_s

    def __await__(self) -> Generator[float, None, None]:
        yield self._for_s


class Task:
    """One coroutine that runs in virtual time."""

    def __init__(self, name: str, coroutine: Coroutine[float, None, Any]) -> None:
        self.name = name
        self.coroutine = coroutine
        self.frozen_until_s = 0.0
        self.over = False

    def kill(self) -> None:
        """End it where it stands: nothing of it runs any more, as after a kill -9."""
        self.over = True
        try:
            self.coroutine.close()
        except ValueError:  # it is the one that runs: it ends at its next await
            return


class Kernel:
    """The clock and who is next."""

    def __init__(self, chance: Random) -> None:
        self._chance = chance
        self.now_s = 0.0
        self._queue: list[tuple[float, float, int, Task]] = []
        self._count = 0

    def spawn(self, name: str, coroutine: Coroutine[float, None, Any], *, at_s: float = 0) -> Task:
        """Let a coroutine run, from now or a later moment on."""
        task = Task(name, coroutine)
        self._push(task, max(at_s, self.now_s))
        return task

    def sleep(self, for_s: float) -> _Turn:
        """Return what to await for so many virtual seconds."""
        return _Turn(for_s)

    def exchange(self) -> _Turn:
        """Return what to await for one exchange with the world outside a process."""
        return _Turn(self._chance.random() * _LATENCY_S)

    def run(self, until_s: float) -> None:
        """Let everything happen that happens until then."""
        while self._queue and self._queue[0][0] <= until_s:
            at_s, _, _, task = heapq.heappop(self._queue)
            if task.over:
                task.kill()
                continue
            if task.frozen_until_s > at_s:
                self._push(task, task.frozen_until_s)
                continue
            self.now_s = at_s
            try:
                for_s = task.coroutine.send(None)
            except StopIteration:
                task.over = True
                continue
            self._push(task, at_s + for_s)  # who killed itself is dropped when its turn comes
        self.now_s = until_s

    def close(self) -> None:
        """End everything."""
        for *_, task in self._queue:
            task.kill()
        self._queue.clear()

    def _push(self, task: Task, at_s: float) -> None:
        self._count += 1
        heapq.heappush(self._queue, (at_s, self._chance.random(), self._count, task))
