"""The pages are true: tables are the code's, examples load, links lead somewhere."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec
import pytest

import controller.settings
import probe.settings
from controller.definition.deployment_file import Syntax, parse
from docs.generate import BLOCKS, PAGES, complaints, filled
from docs.tables import ROOT, explained

DOCS: Final = ROOT / "docs"


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def example(label: str) -> str:
    """Return the block of code below a heading of the operations page."""
    _, _, below = page("operations.md").partition(f"# {label}\n")
    found = re.search(r"^```toml\n(.*?)^```", below, re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


def anchors(text: str) -> set[str]:
    """Return where a link may point to inside a page, as code hosts name its headings."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings}


def dead_links(name: str) -> Iterator[str]:
    prose = re.sub(r"^```.*?^```|`[^`\n]*`", "", page(name), flags=re.DOTALL | re.MULTILINE)
    for link in re.findall(
        r"\]\((?!https://)([^)\s]+)\)", prose
    ):  # of others' pages we know nothing
        file, _, anchor = link.partition("#")
        path = DOCS / (file or name)
        if not path.exists() or (anchor and anchor not in anchors(path.read_text("utf-8"))):
            yield link


def test_every_generated_table_is_as_the_code_has_it() -> None:
    script = [sys.executable, str(ROOT / "docs/generate.py"), "--check"]
    result = subprocess.run(script, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr


def test_a_table_that_drifted_is_told_by_its_page() -> None:
    drifted = page("contract.md").replace("| 3600 |", "| 3601 |")
    assert [each.split()[0] for each in complaints("contract.md", drifted)] == ["docs/contract.md"]
    assert filled(drifted) == page("contract.md")


def test_a_new_field_is_missed_until_somebody_says_what_it_is() -> None:
    old = "| `known` | 1 | an old one |\n"
    table = explained(("field", "default", "what it is"), [["`known`", 2], ["`new`", 3]], old)
    assert "| `known` | 2 | an old one |" in table
    block = f"<!-- generated: change -->\n{table}<!-- end -->"
    assert any("`replica_id`" in each for each in complaints("contract.md", filled(block)))


def test_every_table_that_can_be_generated_stands_on_some_page() -> None:
    marks = re.findall(r"<!-- generated: ([\w-]+) -->", "".join(map(page, PAGES)))
    assert sorted(marks) == sorted(BLOCKS)


@pytest.mark.parametrize("name", PAGES)
def test_every_link_leads_somewhere(name: str) -> None:
    assert list(dead_links(name)) == []


def test_the_example_settings_name_every_key_and_load(tmp_path: Path) -> None:
    file = tmp_path / "fleetpulse.toml"
    file.write_text(example("Settings"))
    prober = probe.settings.load(file, {}, flags={})
    leader = controller.settings.load(file, {}, flags={})
    for effective in (prober, leader):
        named = {key for key, source in effective.sources.items() if source.startswith("file")}
        assert named == {field.name for field in msgspec.structs.fields(effective.settings)}


def test_the_example_deployment_is_one() -> None:
    deployment = parse(example("A deployment"), syntax=Syntax.TOML)
    assert deployment.name == "chat"
    assert deployment.revision.external
