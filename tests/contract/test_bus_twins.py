"""The two daemons share no code for their connection, and must not drift apart for it."""

import ast
from pathlib import Path
from types import ModuleType

import controller.bus_client
import probe.bus_client


def code_of(module: ModuleType) -> str:
    """Return a module's code without its docstring and comments, under neutral names."""
    tree = ast.parse(Path(str(module.__file__)).read_text())
    return ast.unparse(ast.Module(tree.body[1:], [])).replace(
        "fleetpulse-controller", "fleetpulse-probe"
    )


def test_both_daemons_connect_time_out_and_name_errors_alike() -> None:
    assert code_of(probe.bus_client) == code_of(controller.bus_client)
