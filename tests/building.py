"""A copy of the source tree, and the hooks that pip calls to build it, without pip's isolation."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MODULE = f"_native{sysconfig.get_config_var('EXT_SUFFIX')}"
NO_COMPILER = {"CXX": "/nonexistent/c++"}
NO_NVCC = "there is no CUDA compiler (CUDACXX=/nonexistent/nvcc names no program)"
LEFT_OUT = shutil.ignore_patterns(
    ".git",
    "build",
    "dist",
    "results",
    "*.egg-info",
    "*.so",
    "_build.json",
    "__pycache__",
    ".*_cache",
    ".venv",
    "venv",
)

pytest.importorskip("setuptools", minversion="77")


def has_compiler() -> bool:
    return any(shutil.which(name) for name in ("c++", "g++", "clang++"))


needs_tools = pytest.mark.skipif(
    not (has_compiler() and importlib.util.find_spec("cmake") and importlib.util.find_spec("pybind11")),
    reason="needs a C++ compiler, and cmake, ninja and pybind11 from the extra `test`",
)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A copy of the source tree as a fresh clone would be."""
    return Path(shutil.copytree(ROOT, tmp_path / "source", ignore=LEFT_OUT))


def run(*command: object, cwd: Path, **environ: str) -> subprocess.CompletedProcess:
    """Runs a command without this process's build settings, and without a terminal to print notices on.

    Without a CUDA compiler as well, unless one is named: its part of a build takes minutes.
    """
    kept = {
        k: v for k, v in os.environ.items() if not k.startswith("FQVAE_") and k not in ("CXX", "CXXFLAGS")
    }
    path = os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", "")])
    return subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**kept, "PATH": path, "CUDACXX": "/nonexistent/nvcc", **environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        start_new_session=True,
    )


def hook(name: str, source: Path, *arguments: object, **environ: str) -> subprocess.CompletedProcess:
    """Calls a hook of the build backend in a process of its own, as pip does."""
    code = "import sys, setuptools.build_meta as backend; getattr(backend, sys.argv[1])(*sys.argv[2:])"
    return run(sys.executable, "-c", code, name, *arguments, cwd=source, **environ)


def build_wheel(source: Path, **environ: str) -> tuple[zipfile.ZipFile, dict, str]:
    """Returns the wheel, the record of the build in it, and what the build wrote to stderr."""
    done = hook("build_wheel", source, source / "dist", **environ)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = (source / "dist").glob("*.whl")
    wheel = zipfile.ZipFile(path)
    return wheel, json.loads(wheel.read("fqvae_kernels/_build.json")), done.stderr


def run_python(code: str, cwd: Path) -> subprocess.CompletedProcess:
    """Runs code on the package that lies in `cwd`.

    The import hook of an editable install is taken out: it would serve _native from its own source tree.
    """
    without_hook = (
        "import sys; sys.path.insert(0, ''); sys.meta_path[:] = "
        "[f for f in sys.meta_path if not getattr(f, '__module__', '').startswith('__editable__')]\n"
    )
    return run(sys.executable, "-c", without_hook + code, cwd=cwd)


def setup_module():
    """setup.py as a module, which runs no setup()."""
    spec = importlib.util.spec_from_file_location("fqvae_setup", ROOT / "setup.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
