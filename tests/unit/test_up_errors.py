"""What ends `fleetpulse up` on purpose comes out as itself: one sentence, and its exit code."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from controller.cli import up
from controller.errors import DatabaseUnreachable


async def test_verb_that_finds_the_database_busy_ends_it_with_its_own_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing() -> None: ...

    async def busy(*_: object) -> None:
        raise DatabaseUnreachable("the database stayed busy")

    monkeypatch.setattr(up._Run, "_watch", busy)
    stack = SimpleNamespace(
        start=nothing,
        database_url=str(tmp_path / "fleet.db"),
        redis_url=f"unix://{tmp_path}/bus.sock",
        fleet_socket=tmp_path / "fleet.sock",
    )
    show = SimpleNamespace(operator=lambda *_: SimpleNamespace(begin=nothing))
    with pytest.raises(DatabaseUnreachable, match="stayed busy"):
        await up._Run(stack, 0.0, show).until(None)  # type: ignore[arg-type]
