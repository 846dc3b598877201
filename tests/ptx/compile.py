"""Compiles generated C++ with g++, once: the result is kept in a folder, named by a hash of its contents."""

import functools
import hashlib
import os
import pathlib
import platform
import shutil
import subprocess
import tempfile

from .parse import PtxError

_RUNTIME = pathlib.Path(__file__).parent / "runtime"
_FLAGS = [
    "-std=c++17",
    "-fPIC",
    "-w",
    "-fwrapv",
    "-fno-math-errno",
    "-ffp-contract=off",
    "-fvisibility=hidden",
]
# A kernel runs as fast as with -O2, and compiles in half the time.
_KERNEL_FLAGS = ["-Og", "-fno-stack-protector", "-fno-exceptions", "-fno-asynchronous-unwind-tables"]
_RUNTIME_FLAGS = ["-O2", "-frounding-math"]


def cache_folder() -> pathlib.Path:
    """FQVAE_PTX_CACHE, or a folder of the user's own among the temporary files."""
    folder = os.environ.get("FQVAE_PTX_CACHE")
    path = pathlib.Path(folder or pathlib.Path(tempfile.gettempdir()) / f"fqvae-ptx-{os.getuid()}")
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def shared_library(source: str) -> pathlib.Path:
    """The library of a translated kernel; PtxError if there is no compiler, or it refuses the source."""
    runtime = _runtime_object()
    return _compiled(source, [*_KERNEL_FLAGS, "-shared", "-I", str(_RUNTIME)], ".so", [str(runtime)])


def _compiler() -> str:
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        raise PtxError(
            "running PTX on the CPU needs g++ (or another compiler of the GNU dialect, named by CXX)"
        )
    if platform.machine() != "x86_64":
        raise PtxError(f"running PTX on the CPU is written for x86-64, not for {platform.machine()}")
    return compiler


@functools.cache
def _fingerprint() -> str:
    """Of all that the source does not say: the runtime, the compiler, the flags."""
    parts = [_compiler(), subprocess.run([_compiler(), "--version"], capture_output=True, text=True).stdout]
    parts += [path.read_text() for path in sorted(_RUNTIME.glob("*.[ch]*"))]
    parts += [*_FLAGS, *_KERNEL_FLAGS, *_RUNTIME_FLAGS, *_machine_flags()]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


@functools.cache
def _machine_flags() -> tuple[str, ...]:
    """Fused multiply-add in one instruction, where the processor has it; elsewhere libm does it, slowly."""
    info = pathlib.Path("/proc/cpuinfo")
    return ("-mfma",) if info.exists() and " fma " in info.read_text() else ()


def _runtime_object() -> pathlib.Path:
    return _compiled('#include "runtime.cpp"\n', [*_RUNTIME_FLAGS, "-c", "-I", str(_RUNTIME)], ".o", [])


def _compiled(source: str, flags: list[str], suffix: str, objects: list[str]) -> pathlib.Path:
    """Compiles unless the folder has it. Processes that do so at once do not disturb each other."""
    digest = hashlib.sha256((_fingerprint() + source).encode()).hexdigest()[:24]
    folder = cache_folder()
    result = folder / f"{digest}{suffix}"
    if result.exists():
        return result
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        source_file, output = pathlib.Path(scratch) / "kernel.cpp", pathlib.Path(scratch) / f"kernel{suffix}"
        source_file.write_text(source)
        options = [*_FLAGS, *_machine_flags(), *flags, "-o", str(output)]
        run = subprocess.run(
            [_compiler(), *options, str(source_file), *objects], capture_output=True, text=True
        )
        if run.returncode:
            raise PtxError(f"the C++ made from the PTX does not compile:\n{run.stderr[:4000]}")
        output.replace(result)
    return result
