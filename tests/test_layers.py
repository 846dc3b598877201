"""Which packages may import which: fqvae rests on fqvae_kernels, and inside it nothing imports upward."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
# From the lowest layer to the highest. Packages on one line do not know each other.
LAYERS = (
    ("files", "packages", "signals"),
    ("data", "metrics", "models"),
    ("runs",),
    ("training", "evaluation"),
    ("figures",),
    ("report",),
    ("sweep",),
    ("cli",),
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
# The command line in a process of its own, and the package's front door.
FREE = {"fqvae/sweep/child.py", "fqvae/__main__.py", "fqvae/__init__.py"}


def imports(path):
    """The modules that a file imports, at the top or inside a function."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports by a relative name"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{each.name}" for each in node.names if node.module == "fqvae")


def part(module):
    """The part of fqvae that a module belongs to, "" for the package itself."""
    words = module.split(".")
    return words[1] if len(words) > 1 else ""


def files(package):
    return sorted(path for path in (ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("path", files("fqvae"), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_nothing_in_fqvae_imports_upward(path):
    name = path.relative_to(ROOT).as_posix()
    if name in FREE:
        return
    own = part(name.removesuffix(".py").replace("/", "."))
    assert own in LEVEL, f"{name} is in no layer"
    for module in imports(path):
        other = part(module)
        if module.split(".")[0] != "fqvae" or other in ("", "__version__", own):
            continue
        assert other in LEVEL, f"{name} imports {module}, which is in no layer"
        assert LEVEL[other] < LEVEL[own], f"{name} imports {module}, which is not below it"


@pytest.mark.parametrize("path", files("fqvae_kernels"), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_kernels_know_nothing_of_the_models(path):
    assert not [module for module in imports(path) if module.split(".")[0] == "fqvae"]


def test_an_upward_import_would_be_seen(tmp_path):
    wrong = tmp_path / "wrong.py"
    wrong.write_text("def f():\n    from fqvae.cli import main\n    import fqvae.report.html\n")
    assert [part(each) for each in imports(wrong)] == ["cli", "report"]
    assert LEVEL["cli"] > LEVEL["data"]


def test_packages_are_imported_when_they_are_used():
    program = """
import sys, fqvae
assert "torch" not in sys.modules
for name in ("data", "evaluation", "metrics", "models", "runs", "training"):
    assert getattr(fqvae, name).__name__ == f"fqvae.{name}"
try:
    fqvae.nothing
except AttributeError as error:
    assert "nothing" in str(error)
else:
    raise AssertionError
"""
    subprocess.run([sys.executable, "-c", program], check=True)
