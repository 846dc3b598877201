"""Packages that are not installed: help goes without them, and a command that needs one says so in a line."""

import ast
import importlib.metadata
import pathlib
import re
import subprocess
import sys

import pytest

from fqvae.packages import PACKAGES, explain

if sys.version_info >= (3, 11):
    import tomllib
else:  # pytest needs it there
    import tomli as tomllib

ROOT = pathlib.Path(__file__).resolve().parents[1]
REQUIRED = {"torch", "numpy"}
OWN = {"fqvae", "fqvae_kernels"}
COMMANDS = ("train", "evaluate", "traverse", "codes", "plot", "report", "compare", "sweep")
# Lines of blocked modules and a command, each run in a copy of a process that has imported PyTorch.
PROGRAM = """
import os, sys
import torch
import fqvae.cli
for line in sys.stdin.read().splitlines():
    sys.stdout.flush()
    if (child := os.fork()) == 0:
        blocked, _, arguments = line.partition("|")
        for module in list(sys.modules):  # torch imports tqdm if it is there
            if module.partition(".")[0] in blocked.split():
                del sys.modules[module]
        sys.modules.update(dict.fromkeys(blocked.split()))
        os.dup2(1, 2)
        try:
            status = fqvae.cli.main(arguments.split())
        except SystemExit as exit_:
            status = exit_.code
        print(f"status {status}", flush=True)
        os._exit(0)
    os.waitpid(child, 0)
    print("====", flush=True)
"""


def outcomes(lines, cwd):
    """What each line's command prints, and its status as the last word."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM],
        input="\n".join(lines),
        cwd=cwd,
        capture_output=True,
        text=True,
        check=True,
    )
    printed = [each.strip() for each in done.stdout.split("====\n") if each.strip()]
    assert len(printed) == len(lines), done.stdout + done.stderr
    return printed


def test_help_needs_no_extra(tmp_path):
    blocked = " ".join(PACKAGES)
    asked = ["--help", "--version", *(f"{command} --help" for command in COMMANDS)]
    for words, printed in zip(
        asked, outcomes([f"{blocked}|{words}" for words in asked], tmp_path), strict=True
    ):
        assert printed.endswith("status 0"), (words, printed)
        assert printed.startswith("fqvae " if words == "--version" else "usage: fqvae "), (words, printed)


# The command that comes to need each package; `run` is a run that was never trained.
NEEDED = {
    "PIL": "traverse run --samples 16",
    "joblib": "evaluate run",
    "lightning": "train smoke --device cpu",
    "matplotlib": "plot run",
    "ray": "sweep first --ray local",
    "scipy": "evaluate run",
    "sklearn": "evaluate run",
    "tensorboard": "train smoke --device cpu steps=1 batch_size=2",
    "threadpoolctl": "evaluate run",
    "tqdm": "train smoke --device cpu",
    "yaml": "train smoke --device cpu",
}
# With no extra at all.
BARE = {
    "train": "train smoke --device cpu",
    "evaluate": "evaluate run",
    "traverse": "traverse run",
    "codes": "codes run",
    "plot": "plot run",
    "report": "report run",
    "compare": "compare run run",
    "sweep": "sweep first",
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a run."""
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "figures"))
    from picture_runs import write_run

    write_run(tmp_path / "run")
    return tmp_path


def test_a_command_says_which_package_is_missing(folder):
    """h5py, for one data set alone, is tried in tests/data/test_readers.py."""
    assert {*NEEDED, "h5py"} == set(PACKAGES)
    asked = [f"{module}|{words}" for module, words in NEEDED.items()]
    for module, printed in zip(NEEDED, outcomes(asked, folder), strict=True):
        line, status = printed.splitlines()[-2:]
        package, extra = PACKAGES[module]
        assert status == "status 1", printed
        assert re.fullmatch(
            rf"fqvae: error: (--\w+: )?the package {package} is missing; the extra '{extra}' has it: "
            rf'pip install "fqvae_kernels\[{extra}\]"',
            line,
        ), (module, printed)


def test_every_command_says_so_without_the_extras(folder):
    assert set(BARE) == set(COMMANDS)
    asked = [f"{' '.join(PACKAGES)}|{words}" for words in BARE.values()]
    for command, printed in zip(BARE, outcomes(asked, folder), strict=True):
        line, status = printed.splitlines()
        assert status == "status 1", (command, printed)
        assert re.match(r"fqvae: error: the package [\w-]+ is missing; the extra 'train' has it: ", line), (
            line
        )


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ModuleNotFoundError("No module named 'yaml'", name="yaml"), "the package pyyaml is missing"),
        (ModuleNotFoundError("no", name="sklearn.svm"), "the package scikit-learn is missing"),
        # As Lightning's logger words it, without a name.
        (
            ModuleNotFoundError("Neither `tensorboard`\nnor `x` is there."),
            "the package tensorboard is missing",
        ),
        (ModuleNotFoundError("No module named 'mine'", name="mine"), "No module named 'mine'"),
    ],
)
def test_an_error_in_a_line(error, words):
    assert explain(error).startswith(words)
    assert "\n" not in explain(error)


def imported(path):
    """The names of the packages that a file imports, wherever in it, by a statement or by a function."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
        elif (
            isinstance(node, ast.Call)
            and ast.unparse(node.func) in ("optional", "importlib.import_module")
            and isinstance(node.args[0], ast.Constant)
        ):
            yield node.args[0].value


def test_every_package_that_is_imported_is_known():
    files = [*(ROOT / "fqvae").rglob("*.py"), *(ROOT / "fqvae_kernels").rglob("*.py")]
    names = {name.partition(".")[0] for path in files for name in imported(path)}
    # PyTorch brings typing_extensions, and triton where it has it; the logger wandb speaks for itself.
    others = names - set(sys.stdlib_module_names) - REQUIRED - OWN - {"triton", "typing_extensions", "wandb"}
    assert others <= set(PACKAGES)


def test_the_extras_have_the_packages():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for extra in ("train", "cluster"):
        declared = {re.match(r"[\w-]+", line)[0].lower() for line in extras[extra]}
        assert declared == {name.lower() for name, of in PACKAGES.values() if of == extra}
    by_module = importlib.metadata.packages_distributions()
    for module, package in PACKAGES.items():
        found = {name.lower().replace("_", "-") for name in by_module.get(module, [])}
        assert not found or package.name.lower() in found, f"{module} comes from {found}"


@pytest.mark.parametrize("kind", ["MemoryError", "torch.OutOfMemoryError", "RuntimeError"])
def test_too_little_memory_is_told_in_a_line(kind, monkeypatch, capsys):
    import torch

    import fqvae.cli

    raised = {
        "MemoryError": MemoryError(),
        "torch.OutOfMemoryError": torch.OutOfMemoryError("CUDA out of memory.\nTried"),
        "RuntimeError": RuntimeError(
            "[enforce fail at x] DefaultCPUAllocator: can't allocate memory: 1 bytes"
        ),
    }[kind]

    def fail(arguments):
        raise raised

    monkeypatch.setattr(fqvae.cli, "_run", fail)
    assert fqvae.cli.main([]) == 1
    error = capsys.readouterr().err
    assert error.startswith("fqvae: error: out of memory") and error.count("\n") == 1
    raised = RuntimeError("a fault of ours")
    with pytest.raises(RuntimeError, match="a fault of ours"):
        fqvae.cli.main([])
