"""The plugins of benchmarks/gpu_check for pytest: a line for each test, and Triton's programs counted."""

import json
import pathlib
import shutil
import subprocess
import sys

import pytest
import torch
from gpu_check import device_tests, packed, pretend, results
from gpu_check.processes import environment

ROOT = pathlib.Path(__file__).parent.parent

TESTS = """
import os, pytest, torch

@pytest.mark.parametrize("backend", ["cuda", "triton"])
@pytest.mark.parametrize("number", range(3))
def test_it(backend, number):
    assert number != 1, "one is wrong"

def test_without_a_backend():
    pytest.skip("not today")
"""


def run_tests(folder, *arguments):
    """pytest with the plugin on TESTS; the lines it wrote."""
    (folder / "test_some.py").write_text(TESTS)
    (folder / "pytest.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "gpu_check.pytest_lines", "--lines", "lines.jsonl"]
    done = subprocess.run(
        [*command, *arguments, "test_some.py"], cwd=folder, env=environment(), capture_output=True, text=True
    )
    return results.read(folder / "lines.jsonl"), done


def check_lines(lines):
    outcomes = {line["test"].partition("::")[2]: line for line in lines}
    assert {name: line["outcome"] for name, line in outcomes.items()} == {
        "test_it[0-triton]": "passed",
        "test_it[1-triton]": "failed",
        "test_it[2-triton]": "passed",
        "test_without_a_backend": "skipped",
    }
    assert "one is wrong" in outcomes["test_it[1-triton]"]["text"]
    assert "not today" in outcomes["test_without_a_backend"]["text"]
    assert all(line["seconds"] >= 0 for line in lines)


def test_a_line_for_each_test(tmp_path):
    lines, done = run_tests(tmp_path, "--of-backend", "triton")
    assert done.returncode == 1, done.stdout + done.stderr
    check_lines(lines)


def test_a_line_for_each_test_in_parallel(tmp_path):
    pytest.importorskip("xdist")
    lines, done = run_tests(tmp_path, "--of-backend", "triton", "-n", "2")
    assert done.returncode == 1, done.stdout + done.stderr
    check_lines(lines)


def test_parallel_tests_where_pytest_benchmark_is_installed(tmp_path):
    """That plugin warns of parallel processes as pytest begins, and warnings are errors in this project."""
    pytest.importorskip("xdist")
    about = tmp_path / "benchmark_like-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: benchmark-like\nVersion: 1\n")
    (about / "entry_points.txt").write_text("[pytest11]\nbenchmark = benchmark_like\n")
    (tmp_path / "benchmark_like.py").write_text(
        "import warnings\ndef pytest_configure(config): warnings.warn('disabled: xdist is active')\n"
    )
    command = device_tests.command(tmp_path / "lines.jsonl", "gpu", "triton", 2, "--collect-only")
    variables = environment()
    variables["PYTHONPATH"] = f"{tmp_path}:{variables['PYTHONPATH']}"
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_packed_launcher_names_the_drivers_library(tmp_path, monkeypatch):
    """Where no driver is, it is linked against a library that gives nothing, and asks for it all the same."""
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    pretend._keep_module("int cuInit(unsigned); int begin(void) { return cuInit(0); }", "begin")
    (module,) = tmp_path.glob("*/begin*.so")
    assert b"libcuda.so.1\0" in module.read_bytes()


def test_a_process_with_a_broken_device_makes_room_for_another(tmp_path):
    """The failure itself is told, and the tests behind it run in another process."""
    pytest.importorskip("xdist")
    (tmp_path / "conftest.py").write_text(
        "from gpu_check import place\nplace.device_is_broken = lambda: True\n"
    )
    lines, done = run_tests(tmp_path, "--of-backend", "triton", "-n", "1", "--max-worker-restart", "10")
    assert "one is wrong" in next(line["text"] for line in lines if line["outcome"] == "failed")
    passed = {line["test"].partition("::")[2] for line in lines if line["outcome"] == "passed"}
    assert passed == {"test_it[0-triton]", "test_it[2-triton]"}, done.stdout + done.stderr


def ask(folder, package, cache, count):
    """How many programs backend "triton" asks for in a process of its own, and how many it compiles."""
    script = folder / "ask.py"
    script.write_text(
        "import torch\n"
        "from gpu_check import pretend, programs\n"
        "pretend.install()\n"
        "asked, compiled = [], []\n"
        "programs.listen(asked, compiled)\n"
        "from fqvae_kernels import nearest_quantize\n"
        f"for codes in {count}:\n"
        "    nearest_quantize(torch.zeros(100), torch.zeros(codes), backend='triton')\n"
        "print(len(asked), len(compiled))\n"
    )
    variables = environment(TRITON_CACHE_DIR=str(cache), FQVAE_GPU_TESTS_ON="cpu", FQVAE_PRETEND_GPU="1")
    variables["PYTHONPATH"] = f"{package}:{variables['PYTHONPATH']}"
    done = subprocess.run([sys.executable, str(script)], env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return tuple(map(int, done.stdout.split()))


@pytest.mark.slow
def test_programs_that_were_packed_are_found_by_another_copy_of_the_package(tmp_path, native):
    """Made here, packed, unpacked elsewhere, asked for by a package that lies elsewhere: none is compiled."""
    pytest.importorskip("triton")
    if torch.cuda.is_available():
        pytest.skip("a GPU need not be pretended here")
    made, there = tmp_path / "made", tmp_path / "there"
    assert ask(tmp_path, ROOT, made, (3, 300)) == (2, 2)
    asked = set()
    for path in made.glob("*/nearest_kernel.json"):
        asked.add(f"nearest_kernel-{json.loads(path.read_text())['hash'][:10]}")
    assert len(asked) == 2
    packed.pack(made, tmp_path / packed.CACHE, asked)
    packed.unpack(tmp_path / packed.CACHE, there)
    copy = tmp_path / "copy"
    shutil.copytree(ROOT / "fqvae_kernels", copy / "fqvae_kernels")
    assert ask(tmp_path, copy, there, (3, 300)) == (2, 0)
    assert ask(tmp_path, copy, there, (3, 10)) == (2, 1)


@pytest.mark.slow
def test_tests_of_the_gpu_ask_for_programs_without_one(tmp_path, native):
    """The kernels are the compiled ones, though tests/conftest.py would have them interpreted."""
    pytest.importorskip("triton")
    if torch.cuda.is_available():
        pytest.skip("a GPU need not be pretended here")
    lines = tmp_path / "lines.jsonl"
    variables = environment(
        TRITON_CACHE_DIR=str(tmp_path / "cache"), FQVAE_GPU_TESTS_ON="cpu", FQVAE_PRETEND_GPU="1"
    )
    tests = ("-k", "test_nearest_is_captured")
    command = device_tests.command(lines, "gpu", "triton", 0, *tests)
    for compiled in (1, 0):
        done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout
        line = results.read(lines)[-1]
        assert line["outcome"] == "passed" and len(line["asked"]) == 1
        assert len(line.get("compiled", ())) == compiled
