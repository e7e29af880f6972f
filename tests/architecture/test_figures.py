"""README's figures are those that were measured: each stands on the page of benchmarks."""

import re
from typing import Final

from bench.report import BLOCK
from tests.architecture.tree import ROOT

FIGURE: Final = re.compile(r"(?<![\w.,])\d[\d,]*(?:\.\d+)?(?![\d.,]*\d)")


def figures(text: str) -> set[str]:
    """Return every number of a text, without what is inside links and code."""
    return set(FIGURE.findall(re.sub(r"\]\([^)]*\)|`[^`]*`", "", text)))


def test_every_figure_of_the_readme_stands_on_the_page_of_benchmarks() -> None:
    block = BLOCK.search((ROOT / "README.md").read_text(encoding="utf-8"))
    assert block is not None
    told = figures(block[0])
    assert len(told) > 5
    assert told - figures((ROOT / "docs/benchmarks.md").read_text(encoding="utf-8")) == set()


def test_a_figure_that_was_not_measured_is_found() -> None:
    assert figures("10,000 a second at 6.5 us ([page](p2.md); `x3`)") == {"10,000", "6.5"}
