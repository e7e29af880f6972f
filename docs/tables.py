"""How code is read, and shown as tables: the means of `docs/generate.py`, which says what of."""  # noqa: INP001 - a script's other half, not a package

import re
from ast import AnnAssign, Assign, ClassDef, Constant, Expr, Module, Name, parse
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from functools import cache
from inspect import cleandoc
from itertools import pairwise
from pathlib import Path
from typing import Final

import msgspec
from msgspec import inspect as shapes

ROOT: Final = Path(__file__).resolve().parents[1]
EMPTY: Final = "**to be written**"
IDS: Final = re.compile(r" \((?:[RSP]-?\d+(?:, )?)+\)")
"""Ids of requirements in docstrings: of use to who reads the code, not to who reads the page."""

Rows = Iterable[Sequence[object]]


def table(head: Sequence[str], rows: Rows) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    cells = ([str(cell).replace("|", "\\|") for cell in line] for line in lines)
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)


def explained(head: Sequence[str], rows: Rows, old: str) -> str:
    """Return a table whose last cells are people's: those of `old`, found by the first cell."""
    cells = [re.split(r"(?<!\\)\|", line)[1:-1] for line in old.splitlines()]
    said = {line[0].strip(): line[-1].strip().replace("\\|", "|") for line in cells if line}
    return table(head, ([*row, said.get(str(row[0]), EMPTY)] for row in rows))


def code(text: object) -> str:
    """Return text set as code; empty text stays empty."""
    return f"`{text}`" if str(text) else ""


# What the source says beside its names.


@cache
def source(path: str) -> Module:
    """Return the syntax tree of a file, named from the root."""
    return parse((ROOT / path).read_text(encoding="utf-8"))


def notes(path: str, owner: str | None = None) -> dict[str, str]:
    """Return the docstrings that stand below assignments, of a module or of one class in it."""
    body = source(path).body
    if owner is not None:
        body = next(node.body for node in body if isinstance(node, ClassDef) and node.name == owner)
    found = {}
    for node, below in pairwise(body):
        match node, below:
            case (
                Assign(targets=[Name(id=name)]) | AnnAssign(target=Name(id=name)),
                Expr(value=Constant(value=str(note))),
            ):
                found[name] = IDS.sub("", " ".join(cleandoc(note).split()))
            case _:
                pass
    return found


def members(kind: type[StrEnum], path: str) -> str:
    """Return the members of an enum with their docstrings."""
    said = notes(path, kind.__name__)
    rows = ([code(each.value), said.get(each.name, "")] for each in kind)
    return table((kind.__name__, "what it means"), rows)


def constants(path: str, module: object, old: str) -> str:
    """Return the numbers a module declares."""
    declared = [
        node.target.id
        for node in source(path).body
        if isinstance(node, AnnAssign) and isinstance(node.target, Name)
    ]
    values = {name: getattr(module, name) for name in declared if not name.startswith("_")}
    rows = [[code(n), v] for n, v in values.items() if isinstance(v, int | float)]
    return explained(("constant", "value", "why"), rows, old)


# Structs: fields, defaults, bounds.


def shape(kind: shapes.Type) -> tuple[str, str]:  # noqa: PLR0911 - one for each kind of type
    """Return the name of a type, and its bounds."""
    match kind:
        case shapes.FloatType() | shapes.IntType():
            word = "number" if isinstance(kind, shapes.FloatType) else "integer"
            return word, _range(kind)
        case shapes.StrType(max_length=longest, pattern=pattern):
            limits = (code(pattern or ""), f"at most {longest} characters" if longest else "")
            return "text", ", ".join(filter(None, limits))
        case shapes.LiteralType(values=values):
            return " or ".join(f"`{value}`" for value in values), ""
        case shapes.EnumType(cls=cls):
            return cls.__name__, ""
        case shapes.StructType(cls=cls):
            return cls.__name__, ""
        case shapes.VarTupleType(item_type=item):
            return f"list of {shape(item)[0]}", shape(item)[1]
        case shapes.DictType(key_type=key, value_type=value):
            return f"table of {shape(key)[0]} to {shape(value)[0]}", ""
        case shapes.UnionType(types=types):
            named = [shape(each) for each in types]
            return " or ".join(n for n, _ in named), "; ".join(b for _, b in named if b)
        case shapes.NoneType():
            return "none", ""
        case _:
            return type(kind).__name__.removesuffix("Type").lower().replace("bool", "yes/no"), ""


def _range(kind: shapes.FloatType | shapes.IntType) -> str:
    low = f"above {kind.gt:.9g}" if kind.gt is not None else f"{kind.ge or 0:.9g}"
    if kind.le is not None:
        return f"{low} to {kind.le:.9g}"
    return low if kind.gt is not None else f"{low} or more" if kind.ge is not None else ""


def _default(field: shapes.Field) -> str:
    if field.required:
        return "required"
    value = field.default if field.default is not msgspec.NODEFAULT else {}
    if isinstance(value, msgspec.Struct) or value == {}:
        return "empty"
    return code(msgspec.json.encode(value).decode())


def fields(kind: type[msgspec.Struct]) -> Iterator[list[str]]:
    """Yield name, type, default and bounds of every field."""
    described = shapes.type_info(kind)
    assert isinstance(described, shapes.StructType)  # noqa: S101 - what a struct's info is
    for field in described.fields:
        name, bounds = shape(field.type)
        yield [code(field.name), name, _default(field), bounds]


def struct(kind: type[msgspec.Struct], old: str) -> str:
    """Return the fields of a struct; what they mean is said by people."""
    return explained(("field", "type", "default", "bounds", "what it is"), fields(kind), old)
