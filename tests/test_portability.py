"""The native code for other processors and by other compilers, and the choice of an instruction set.

csrc/tests/edge_cases.cpp is built for 64-bit ARM and for s390x, which is big-endian, and run by qemu-user.
Debian's packages are qemu-user, g++-aarch64-linux-gnu and g++-s390x-linux-gnu; for the warnings, clang-14 and
clang-16. Where one is missing its test is skipped, or fails if FQVAE_REQUIRE_CROSS is set.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cases import run_python

ROOT = Path(__file__).resolve().parents[1]
PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])


def tool(name: str) -> str:
    """The program's path."""
    found = shutil.which(name, path=PATH)
    if found is None and os.environ.get("FQVAE_REQUIRE_CROSS"):
        pytest.fail(f"{name} is missing")
    if found is None:
        pytest.skip(f"{name} is missing")
    return found


def run(*command: object) -> str:
    """The output of a command that succeeds."""
    given = {"CXXFLAGS", "LDFLAGS", "LD_PRELOAD", "FQVAE_CPU_ISA"}
    environ = {name: value for name, value in os.environ.items() if name not in given} | {"PATH": PATH}
    done = subprocess.run(
        list(map(str, command)), env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-8000:]
    return done.stdout


def configure(folder: Path, compiler: str, *options: str) -> None:
    """Writes CMake's build files. Another build type than Release has no flags but those given."""
    known = (f"-DCMAKE_CXX_COMPILER={compiler}", f"-DCMAKE_MAKE_PROGRAM={tool('ninja')}", "-DFQVAE_WERROR=ON")
    run(tool("cmake"), "-S", ROOT, "-B", folder, "-G", "Ninja", *known, *options)


@pytest.mark.slow
@pytest.mark.parametrize("processor", ["aarch64", "s390x"])
def test_edge_cases_on_another_processor(tmp_path, processor):
    compiler, emulator = tool(f"{processor}-linux-gnu-g++"), tool(f"qemu-{processor}")
    target = ("-DCMAKE_SYSTEM_NAME=Linux", f"-DCMAKE_SYSTEM_PROCESSOR={processor}")
    configure(
        tmp_path, compiler, *target, "-DFQVAE_PYTHON=OFF", "-DCMAKE_BUILD_TYPE=None", "-DCMAKE_CXX_FLAGS=-O1"
    )
    run(tool("cmake"), "--build", tmp_path, "--target", "edge_cases")
    printed = run(emulator, "-L", f"/usr/{processor}-linux-gnu", tmp_path / "edge_cases")
    assert "every edge case passed" in printed


@pytest.mark.slow
@pytest.mark.parametrize("compiler", ["clang++-14", "clang++-16"])
def test_clang_has_no_warnings(tmp_path, compiler):
    """The extension module and the program of edge cases, with the flags of each file."""
    pybind11 = pytest.importorskip("pybind11")
    python = (f"-DPython_EXECUTABLE={sys.executable}", f"-Dpybind11_DIR={pybind11.get_cmake_dir()}")
    commands = {}
    for options in (("-DFQVAE_PYTHON=ON", *python), ("-DFQVAE_PYTHON=OFF",)):
        configure(tmp_path, tool(compiler), *options)
        for each in json.loads((tmp_path / "compile_commands.json").read_text()):
            commands[Path(each["file"]).stem] = f"cd {each['directory']} && {each['command']} -fsyntax-only"
    assert commands.keys() >= {"bindings", "dispatch", "parallel", "kernels_portable", "edge_cases"}
    for command in commands.values():
        run("sh", "-c", command)


def test_an_unknown_instruction_set_is_named_with_its_variable(native):
    available = ", ".join(native.instruction_sets())
    program = (
        "import os, warnings; os.environ['FQVAE_CPU_ISA'] = 'abacus'\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    import fqvae_kernels\n"
        "print([str(each.message) for each in caught if 'cpu backend' in str(each.message)])\n"
    )
    done = run_python("-c", program)
    assert done.returncode == 0, done.stderr
    assert "FQVAE_CPU_ISA must be one that" in done.stdout
    assert f"({available}), got 'abacus'" in done.stdout


@pytest.mark.parametrize("codes", [-1, 0, 2**24 + 1, 2**31, 2**32 + 5])
def test_numbers_of_codes_beyond_the_limits_are_refused(native, codes):
    """No memory is given: the number is refused before it is touched."""
    calls = (
        lambda: native.gumbel_noise(1, 0, 1, codes, False, 0, 1),
        lambda: native.philox_words(1, 0, 1, codes, 0, 1),
        lambda: native.philox_floor(1, 1, codes, 1),
    )
    for call in calls:
        with pytest.raises(ValueError, match=rf"codes must be in \[1, 2\*\*24\], got {codes}$"):
            call()
