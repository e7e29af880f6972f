"""The end of sessions: asked for in good order, forced when it does not come, and cleaned up after.

Blocking. In memory is only what no directory can tell: which keepers are children of this process,
to be reaped, and since when a session is asked to end.
"""

import contextlib
import os
import signal
import time
from collections.abc import Iterable
from typing import Final

from controller.provision.process import identity
from controller.provision.process.place import Place

STOP_WAIT_S: Final = 5.0
"""How long the end is waited for; later it is asked for again."""
KEEPER_GRACE_S: Final = 5.0
"""How much later than it should a keeper may be done before it is killed itself."""
_POLL_S: Final = 0.01


class Ender:
    """Ends sessions, whoever started them."""

    def __init__(self, *, grace_s: float) -> None:
        """Let a session take `grace_s` from SIGTERM to SIGKILL."""
        self._grace_s = grace_s
        self._keepers: set[int] = set()
        self._since: dict[str, float] = {}
        self._asked: set[str] = set()

    def adopt(self, keeper: int) -> None:
        """Remember a keeper that is a child of this process."""
        self._keepers.add(keeper)

    def reap(self) -> None:
        """Take note of the keepers that ended, so that the kernel forgets them."""
        for pid in [*self._keepers]:
            with contextlib.suppress(ChildProcessError):
                if os.waitpid(pid, os.WNOHANG)[0] == 0:
                    continue
            self._keepers.discard(pid)

    def end(self, places: Iterable[Place]) -> dict[str, OSError | None]:
        """Ask them all to end; return the names of those that have not after a while.

        One whose directory cannot be used has its error with it, and keeps no other waiting.
        """
        left = {place.path.name: place for place in places}
        unusable: dict[str, OSError | None] = {}
        deadline = time.monotonic() + min(STOP_WAIT_S, self._grace_s + KEEPER_GRACE_S)
        while True:
            for name in [*left]:
                try:
                    over = self.is_over(left[name])
                except OSError as error:
                    unusable[name] = error
                    del left[name]
                    continue
                if over:
                    del left[name]
                    self._since.pop(name, None)
                    self._asked.discard(name)
            self.reap()
            if not left or time.monotonic() >= deadline:
                return dict.fromkeys(left) | unusable
            time.sleep(_POLL_S)

    def is_over(self, place: Place) -> bool:
        """Tell whether nothing is left of a session; ask what is left to end.

        Raises:
            OSError: if its directory cannot be used.
        """
        promise = place.promise
        if promise is None:
            return place.retire()
        if not place.is_kept():
            if place.exit is None:
                identity.sweep(promise.token)
            return place.retire()
        keeper, now, name = place.keeper, time.monotonic(), place.path.name
        late = now - self._since.setdefault(name, now) > self._grace_s + KEEPER_GRACE_S
        if keeper is None:  # it has just come; or cannot write down who it is, as on a full disk
            if late:
                identity.sweep(promise.token)
        elif late:
            identity.send(keeper, promise.token, signal.SIGKILL)  # its command dies with it
        elif name not in self._asked:
            self._asked.add(name)
            identity.send(keeper, promise.token, signal.SIGTERM)
        return False
