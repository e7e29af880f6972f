"""Reference targets: places that should always accept a connection, as sailors have lighthouses.

A stage of the daemon where the setting names any. Asked once a second, past pool and schedule;
what their silence means together with the fleet's is `probe.selfcheck`'s to say.
"""

from typing import Final

import anyio
import structlog

from probe.layers import Address
from probe.reasons import REASONS, OutcomeKind
from probe.selfcheck import network_gone
from probe.stages import Prober

PERIOD_S: Final = 1.0
TIMEOUT_S: Final = 1.0

_log = structlog.get_logger("probe.selfwatch.landmarks")


class Landmarks:
    """Looks at every place, and freezes verdicts while our own network is gone (R-66)."""

    def __init__(self, prober: Prober, places: tuple[Address, ...]) -> None:
        self._prober = prober
        self._places = places
        self._up: dict[Address, bool] = {}
        self._before = (0, 0)

    async def run(self) -> None:
        """Look for ever, if there are any."""
        if not self._places:
            await anyio.sleep_forever()
        while True:
            await self.step()
            await anyio.sleep(PERIOD_S)

    async def step(self) -> None:
        """Look at all of them at once, and decide."""
        async with anyio.create_task_group() as group:
            for place in self._places:
                group.start_soon(self._look, place, name=f"landmark {place.host}")
        up = tuple(self._up.values())
        passed, failed = self._counted()
        vitals = self._prober.vitals
        vitals.landmarks_up, vitals.landmarks_down = sum(up), len(up) - sum(up)
        before = vitals.cut_off
        gone = network_gone(
            up, passed=passed - self._before[0], failed=failed - self._before[1], before=before
        )
        self._before = (passed, failed)
        vitals.cut_off = self._prober.sweep.frozen = gone
        if gone and not before:
            _log.error("network_gone", landmarks=len(up), then="silence is no evidence")
        elif before and not gone:
            _log.info("network_back", landmarks_up=sum(up))

    async def _look(self, place: Address) -> None:
        self._up[place] = False
        with anyio.move_on_after(TIMEOUT_S):
            try:
                stream = await anyio.connect_tcp(place.host, place.port)
            except OSError:
                return
            self._up[place] = True
            await anyio.aclose_forcefully(stream)

    def _counted(self) -> tuple[int, int]:
        """Count the probes that ever passed, and those that ever failed."""
        reasons = self._prober.sweep.counters.reasons
        kinds = {OutcomeKind.PASSED: 0, OutcomeKind.FAILED: 0, OutcomeKind.PROBE_ERROR: 0}
        for reason, count in reasons.items():
            kinds[REASONS[reason].kind] += count
        return kinds[OutcomeKind.PASSED], kinds[OutcomeKind.FAILED]
