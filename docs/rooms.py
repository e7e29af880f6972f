"""The house as its contracts and its files tell it, for `docs/generate.py`."""  # noqa: INP001 - a script's other half, not a package

import tomllib
from ast import get_docstring

from docs.tables import ROOT, code, source, table


def _contracts() -> list[dict[str, object]]:
    document = tomllib.loads((ROOT / "pyproject.toml").read_text())
    found: list[dict[str, object]] = document["tool"]["importlinter"]["contracts"]
    return found


def contracts() -> str:
    """Return the import contracts."""
    return table(("contract", "what it says"), ([code(c["id"]), c["name"]] for c in _contracts()))


def floors(contract: str) -> str:
    """Return the layers of one contract as a picture, the highest on top."""
    (layers,) = (c["layers"] for c in _contracts() if c["id"] == contract)
    assert isinstance(layers, list)  # noqa: S101 - the contract's own form
    names = [str(layer).replace(" | ", " · ").replace("__main__", "main") for layer in layers]
    boxes = [f'  f{n}["{name}"]' for n, name in enumerate(names)]
    arrows = [f"  f{n} --> f{n + 1}" for n in range(len(names) - 1)]
    return "\n".join(["```mermaid", "flowchart TB", *boxes, *arrows, "```", ""])


def rooms(package: str) -> str:
    """Return one line for each module or room of a package."""
    rows = []
    for path in sorted((ROOT / package).iterdir()):
        inside = sorted(p.stem for p in path.glob("*.py") if p.stem != "__init__")
        file = path / "__init__.py" if path.is_dir() else path
        if file.suffix != ".py" or not file.is_file() or file == ROOT / package / "__init__.py":
            continue
        said = (get_docstring(source(file.relative_to(ROOT).as_posix())) or "").partition("\n")[0]
        name = f"{path.stem}/" if path.is_dir() else path.stem
        rows.append([code(name), said + (f" ({', '.join(inside)})" if inside else "")])
    return table((package, "what it is for"), rows)
