"""What HAProxy, blackbox_exporter and we make of the same replies is what the docs say.

Needs Debian's packages `haproxy` and `prometheus-blackbox-exporter`.
"""

import tomllib
from functools import partial
from pathlib import Path
from typing import Any, Final

import anyio

from tests.fakes import peers
from tests.fakes.peers import Mode, Verdicts
from tests.fakes.replies import TABLE
from tests.fakes.services import program

SAID: Final[dict[str, dict[str, Any]]] = tomllib.loads(
    Path(__file__).parents[2].joinpath("docs/conformance.toml").read_text(encoding="utf-8")
)


async def test_each_prober_makes_of_each_reply_what_the_docs_say(tmp_path: Path) -> None:
    program("haproxy", package="haproxy")
    program("prometheus-blackbox-exporter", package="prometheus-blackbox-exporter")
    found: dict[str, Verdicts] = {}

    async def ask(name: str, probe: partial[Any]) -> None:
        found[name] = await probe()

    with peers.farm_process() as ports:
        async with anyio.create_task_group() as group:
            group.start_soon(ask, "ours", partial(peers.ours, ports))
            group.start_soon(ask, "haproxy", partial(peers.haproxy, ports, tmp_path))
            group.start_soon(ask, "blackbox", partial(peers.blackbox, ports, tmp_path))
    real = {
        name: {
            mode: [found[p][name, mode] for p in ("ours", "haproxy", "blackbox")] for mode in Mode
        }
        for name in TABLE
    }
    said = {name: {mode: row[mode] for mode in Mode} for name, row in SAID.items()}
    assert real == said, {name: row for name, row in real.items() if row != said.get(name)}


def test_our_column_is_what_the_reply_table_says() -> None:
    for name, kind in TABLE.items():
        ours = {mode: SAID[name][mode][0] for mode in Mode}
        assert ours == {Mode.STATUS: kind.outcome, Mode.BODY: kind.outcome_needed}, name


def test_every_difference_has_a_reason_and_nothing_else_has() -> None:
    for name, row in SAID.items():
        differ = any(len(set(row[mode])) > 1 for mode in Mode)
        assert differ == bool(row.get("why", "").strip()), name
