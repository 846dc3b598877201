"""The native code without Python: csrc/tests/edge_cases.cpp under the address and undefined sanitizers.

The program is built into build/, so only the first run compiles everything. The same by hand:

    cmake -S . -B build/sanitizers -G Ninja -DFQVAE_PYTHON=OFF -DFQVAE_SANITIZE=ON -DFQVAE_WERROR=ON
    cmake --build build/sanitizers --target edge_cases && build/sanitizers/edge_cases
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
CANARIES = {
    "heap-buffer-overflow": "int main(int n, char**) { int* p = new int[n]; p[n] = n; delete[] p; }",
    "signed integer overflow": "int main(int n, char**) { return (n + 0x7fffffff) != 0; }",
}


PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])


def run(*command: object) -> subprocess.CompletedProcess:
    environ = {k: v for k, v in os.environ.items() if k not in ("LD_PRELOAD", "FQVAE_CPU_ISA", "CXXFLAGS")}
    return subprocess.run(
        [str(word) for word in command],
        env={**environ, "PATH": PATH, "UBSAN_OPTIONS": "print_stacktrace=1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def compiler(tmp_path_factory) -> str:
    """A compiler whose sanitizers work: it must catch the fault in each of two small programs."""
    found = next((path for name in ("c++", "g++", "clang++") if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("there is no C++ compiler")
    folder = tmp_path_factory.mktemp("canaries")
    for number, (fault, program) in enumerate(CANARIES.items()):
        source = folder / f"{number}.cpp"
        source.write_text(program)
        built = run(found, *SANITIZERS, source, "-o", source.with_suffix(""))
        if built.returncode != 0:
            pytest.skip(f"{found} cannot link with the sanitizers")
        caught = run(source.with_suffix(""))
        assert caught.returncode != 0
        assert fault in caught.stderr
    return found


@pytest.mark.slow
def test_edge_cases_under_the_sanitizers(compiler):
    cmake, ninja = (shutil.which(tool, path=PATH) for tool in ("cmake", "ninja"))
    if cmake is None or ninja is None:
        pytest.skip("cmake or ninja is missing; the extra `test` has both")
    # CMake ties a build folder to one source folder and one compiler, but not to one Ninja.
    key = hashlib.sha256(f"{ROOT}\0{compiler}".encode()).hexdigest()[:8]
    folder = ROOT / "build" / f"sanitizers-{key}"
    options = (
        "-DFQVAE_PYTHON=OFF",
        "-DFQVAE_SANITIZE=ON",
        "-DFQVAE_WERROR=ON",
        f"-DCMAKE_CXX_COMPILER={compiler}",
        f"-DCMAKE_MAKE_PROGRAM={ninja}",
    )
    for command in (
        (cmake, "-S", ROOT, "-B", folder, "-G", "Ninja", *options),
        (cmake, "--build", folder, "--target", "edge_cases"),
        (folder / "edge_cases",),
    ):
        done = run(*command)
        assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-8000:]
