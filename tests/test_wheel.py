"""The wheel: what its objects are compiled for, and that a processor without AVX can load its module.

The test that builds one is slow: `pytest -m slow tests/test_wheel.py`.
"""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from building import MODULE, ROOT, needs_tools, run
from building import source as source  # a fixture

NEWER = re.compile(r"-m(avx|fma|f16c|arch=|cpu=|tune=)")


@needs_tools
@pytest.mark.skipif(not shutil.which("ninja"), reason="ninja is not on the PATH")
def test_only_objects_chosen_at_run_time_are_compiled_for_newer_processors(tmp_path):
    import pybind11

    run_cmake = run(
        *("cmake", "-S", ROOT, "-B", tmp_path, "-G", "Ninja", f"-DPython_EXECUTABLE={sys.executable}"),
        f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
        cwd=tmp_path,
    )
    assert run_cmake.returncode == 0, run_cmake.stderr
    commands = {
        Path(each["file"]).name: each["command"]
        for each in json.loads((tmp_path / "compile_commands.json").read_text())
    }
    assert {"bindings.cpp", "dispatch.cpp", "parallel.cpp", "kernels_portable.cpp"} <= set(commands)
    newer = {name for name, command in commands.items() if NEWER.search(command)}
    assert newer == {name for name in commands if name.startswith("kernels_avx")}
    assert not any("-flto" in command for command in commands.values())


def load_below_avx(module: Path, cwd: Path) -> subprocess.CompletedProcess:
    """Loads the native module, which knows no torch, on an emulated processor of 2008."""
    code = (
        "import importlib.util, sys; spec = importlib.util.spec_from_file_location('_native', sys.argv[1]);"
        "native = importlib.util.module_from_spec(spec); spec.loader.exec_module(native);"
        "import array; out = array.array('I', bytes(16)); address = out.buffer_info()[0];"
        "native.philox_words(0, 0, 1, 4, address, 1);"
        "print(*native.instruction_sets(), native.instruction_set(), '%08x' % out[0])"
    )
    return run("qemu-x86_64", "-cpu", "Nehalem", sys.executable, "-I", "-c", code, module, cwd=cwd)


@pytest.mark.skipif(not shutil.which("qemu-x86_64"), reason="qemu-user is not installed")
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the module is for another processor")
def test_a_processor_without_avx_gets_the_portable_kernels(tmp_path):
    native = pytest.importorskip("fqvae_kernels._native", reason="the native module is not built")
    done = load_below_avx(Path(native.__file__), tmp_path)
    # The word is the first of the known answers in Random123: counter 0, key 0.
    assert done.stdout == "portable scalar device portable 6627e8d5\n", done.stderr


@pytest.mark.slow
@needs_tools
@pytest.mark.skipif(sys.platform != "linux", reason="manylinux")
def test_the_script_makes_a_manylinux_wheel_and_an_sdist(source, tmp_path):
    for name in ("build", "auditwheel", "twine"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is missing: it is in the extra `wheel`")
    flags = {"CXXFLAGS": "-march=native", "PYTHON": sys.executable}
    done = run("tools/build_wheel.sh", "--no-isolation", cwd=source, **flags)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list((source / "dist").glob("*.tar.gz"))) == 1
    (wheel,) = (source / "dist").glob("*.whl")
    assert re.search(r"-manylinux_2_\d+_\w+\.whl$", wheel.name), wheel.name
    assert done.stdout.count("PASSED") == 2
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    # Nothing was copied into it: it needs the C and C++ runtimes of the platform alone.
    assert not list((tmp_path / "installed").glob("*.libs"))
    # Loads on a processor that has no AVX, though CXXFLAGS asked for this one's instructions.
    if shutil.which("qemu-x86_64") and os.uname().machine == "x86_64":
        loaded = load_below_avx(tmp_path / "installed" / "fqvae_kernels" / MODULE, tmp_path)
        assert loaded.stdout == "portable scalar device portable 6627e8d5\n", loaded.stderr
