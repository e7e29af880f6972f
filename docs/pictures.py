"""Runs of the simulator as pictures, for `docs/generate.py`: the same seed, the same bytes."""  # noqa: INP001 - a script's other half, not a package

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from controller.simulate.picture import svg
from controller.simulate.report import run
from controller.simulate.scenario import load
from docs.tables import ROOT

SEED: Final = 3
PLOTS: Final = ROOT / "docs" / "plots"
DRAWN: Final = ("rolling", "blue-green", "never-healthy", "bus-lost")
"""Scenarios that the pages show."""


def pictures() -> Mapping[Path, str]:
    """Return every picture by where it belongs, as the code draws it now."""
    scenarios = ROOT / "docs" / "scenarios"
    return {
        PLOTS / f"{name}.svg": svg(run(load(scenarios / f"{name}.toml"), seed=SEED))
        for name in DRAWN
    }
