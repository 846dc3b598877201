"""No two modules of the benchmarks or of the cost model import one another, not even for their types."""

import ast
import graphlib
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent


def imports_of(path: pathlib.Path) -> set[str]:
    """The last names of all modules that a file may import, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.rpartition(".")[2] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            # `from . import x` and `from package import x` name a module last, `from .x import y` before.
            package = node.module in (None, path.parent.name)
            found |= {alias.name for alias in node.names} if package else {node.module.rpartition(".")[2]}
    return found


@pytest.mark.parametrize(
    "folder", ["benchmarks", "benchmarks/adoption", "benchmarks/gpu_check", "tools/gpu_model"]
)
def test_imports_go_one_way(folder):
    modules = {path.stem: imports_of(path) for path in (ROOT / folder).glob("*.py")}
    graph = {name: imported & (modules.keys() - {name}) for name, imported in modules.items()}
    assert any(graph.values())
    assert list(graphlib.TopologicalSorter(graph).static_order())
