"""The CUDA compiler, where there is one, and the PTX of the kernels in csrc/cuda."""

import functools
import hashlib
import importlib.util
import os
import pathlib
import shutil
import subprocess
import tempfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SOURCES = ("forward", "backward", "drawn", "nearest", "posterior", "reduce", "slopes")


@functools.cache
def nvcc() -> str | None:
    """The command: from the PATH, else from the PyPI package nvidia-cuda-nvcc."""
    found = shutil.which("nvcc")
    if found is None and (package := importlib.util.find_spec("nvidia")) is not None:
        for folder in package.submodule_search_locations or []:
            found = found or next(map(str, sorted(pathlib.Path(folder).glob("*/bin/nvcc"))), None)
    return found


needs_nvcc = pytest.mark.skipif(nvcc() is None, reason="there is no nvcc, on the PATH or from PyPI")


@functools.cache
def compiled(source: str, arch: str, kind: str = "ptx") -> pathlib.Path:
    """A file of csrc/cuda compiled for one architecture, to "ptx" or "cubin"; kept between runs."""
    folder = ROOT / "csrc"
    paths = [*folder.glob("*.h"), *folder.glob("row/*.h"), *folder.glob("cuda/*")]
    texts = [path.read_bytes() for path in sorted(paths)]
    version = subprocess.run([nvcc(), "--version"], capture_output=True, check=True).stdout
    key = hashlib.sha256(b"\0".join([*texts, version, f"{source} {arch} {kind}".encode()])).hexdigest()[:20]
    folder_of_cache = os.environ.get("FQVAE_PTX_CACHE")
    cache = pathlib.Path(folder_of_cache or pathlib.Path(tempfile.gettempdir(), "fqvae-ptx"))
    out = cache / f"{source}-{arch}-{key}.{kind}"
    if not out.exists():
        cache.mkdir(parents=True, exist_ok=True)
        part = out.with_suffix(f".{os.getpid()}")
        command = [nvcc(), f"-arch={arch}", "-O3", "-std=c++17", f"-{kind}", "-o", part]
        done = subprocess.run([*command, folder / "cuda" / f"{source}.cu"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        part.rename(out)
    return out
