"""The build: what FQVAE_BUILD and FQVAE_CUDA_ARCHS do, and what is said where it cannot be met.

These tests call the hooks that pip calls, on a copy of the source tree and without pip's isolation, so they
need no network. What compiles everything is slow: `pytest -m slow tests/test_build.py`.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from building import (
    NO_COMPILER,
    NO_NVCC,
    build_wheel,
    has_compiler,
    hook,
    needs_tools,
    run,
    run_python,
    setup_module,
)
from building import source as source  # a fixture

REFUSED = {
    "unknown": ({"FQVAE_BUILD": "fast"}, "FQVAE_BUILD=fast is unknown: it may be auto, cpu, cuda or none."),
    "cuda without nvcc": ({"FQVAE_BUILD": "cuda"}, f"FQVAE_BUILD=cuda cannot be met: {NO_NVCC}."),
    "cuda without a compiler": (
        {"FQVAE_BUILD": "cuda", **NO_COMPILER},
        "FQVAE_BUILD=cuda cannot be met: there is no C++ compiler (CXX=/nonexistent/c++ names no program).",
    ),
    "no such compiler": (
        {"FQVAE_BUILD": "cpu", **NO_COMPILER},
        "FQVAE_BUILD=cpu cannot be met: there is no C++ compiler (CXX=/nonexistent/c++ names no program).",
    ),
    "empty PATH": (
        {"FQVAE_BUILD": "cpu", "PATH": ""},
        "there is no C++ compiler (none of c++, g++ and clang++ is on the PATH).",
    ),
    "not a compiler": (
        {"FQVAE_BUILD": "cpu", "CXX": "false"},
        "FQVAE_BUILD=cpu cannot be met: the C++ compiler false cannot build a C++17 program (no output).",
    ),
    "half a quote": (
        {"FQVAE_BUILD": "cpu", "CXX": "g++ 'x"},
        "FQVAE_BUILD=cpu cannot be met: there is no C++ compiler (CXX=g++ 'x names no program).",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_explicit_choice_that_cannot_be_met_stops_with_one_sentence(case, source):
    environ, sentence = REFUSED[case]
    done = hook("get_requires_for_build_wheel", source, **environ)
    assert done.returncode != 0
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.strip().endswith(sentence)


def test_pip_shows_the_sentence_and_no_traceback(source, tmp_path):
    pytest.importorskip("pip")
    options = ("--no-build-isolation", "--no-deps", "--target", tmp_path / "target")
    done = run(sys.executable, "-m", "pip", "install", *options, source, cwd=tmp_path, FQVAE_BUILD="cuda")
    assert done.returncode != 0
    assert REFUSED["cuda without nvcc"][1] in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_without_a_compiler_auto_builds_pure_python_and_says_why(source):
    wheel, record, stderr = build_wheel(source, **NO_COMPILER)
    reason = "there is no C++ compiler (CXX=/nonexistent/c++ names no program)"
    assert record == {"requested": "auto", "built": [], "reason": reason, "cuda_reason": reason}
    assert f"the CPU kernels were NOT built: {reason}." in stderr
    assert wheel.filename.endswith("-py3-none-any.whl")
    assert not [name for name in wheel.namelist() if "_native." in name]


@needs_tools
@pytest.mark.parametrize("requested", ["auto", "cpu"])
def test_a_compilation_that_fails(requested, source):
    for unit in source.glob("csrc/**/*.cpp"):
        unit.write_text("#error broken on purpose\n")
    if requested == "auto":
        wheel, record, stderr = build_wheel(source)
        assert record["built"] == []
        assert "broken on purpose" in record["reason"]
        assert f"NOT built: {record['reason']}." in stderr
        assert not [name for name in wheel.namelist() if "_native." in name]
    else:
        done = hook("build_wheel", source, source / "dist", FQVAE_BUILD="cpu")
        assert done.returncode != 0
        assert "broken on purpose" in done.stdout
        assert re.match(
            r"FQVAE_BUILD=cpu cannot be met: cmake failed \(.*broken on purpose\)\.$",
            done.stderr.splitlines()[-1],
        )
        assert "Traceback" not in done.stderr


@needs_tools
def test_the_build_says_how_far_it_is(source, tmp_path):
    """How many objects at the start, then a line as each is done: not all of them together at the end."""
    for unit in source.glob("csrc/**/*.cpp"):
        unit.write_text("")
    # One object is not done before this test has read the line of another, or after 20 seconds.
    read, late = tmp_path / "read", tmp_path / "late"
    compiler = tmp_path / "compiler"
    compiler.write_text(
        f"""#!/bin/sh
case "$*" in *bindings.cpp.o*)
    tries=0
    while [ ! -e {read} ]; do
        sleep 0.1; tries=$((tries + 1))
        if [ $tries = 200 ]; then touch {late}; break; fi
    done
esac
exec c++ "$@"
"""
    )
    compiler.chmod(0o755)
    code = "import setuptools.build_meta as backend; backend.build_wheel('dist')"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FQVAE_")}
    path = os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", "")])
    kept.pop("PYTHONUNBUFFERED", None)
    environ = {**kept, "PATH": path, "CXX": str(compiler), "FQVAE_BUILD": "cpu", "MAX_JOBS": "2"}
    with subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=source,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as build:
        seen = []
        for line in build.stdout:
            seen.append(line)
            if re.match(r"\[\d+/\d+\] Building", line):
                read.touch()
    text = "".join(seen)
    assert build.returncode == 0, text
    assert read.exists() and not late.exists(), text
    announced = re.search(r"fqvae_kernels: compiling (\d+) objects; .* minutes of CPU time", text)
    assert announced, text
    steps = re.findall(r"^\[(\d+)/(\d+)\] Building CXX object .*\.o$", text, re.MULTILINE)
    assert len(steps) == int(announced[1]) > 2
    assert text.index("compiling") < text.index("[1/")


@pytest.fixture
def fake_nvcc(tmp_path):
    """A program that knows three architectures and compiles nothing."""
    path = tmp_path / "bin" / "nvcc"
    path.parent.mkdir()
    listed = "echo compute_80; echo compute_90a; echo compute_120"
    path.write_text(f'#!/bin/sh\n[ "$1" = --list-gpu-arch ] || exit 1\n{listed}\n')
    path.chmod(0o755)
    return path


@pytest.mark.skipif(not has_compiler(), reason="there is no C++ compiler")
def test_which_architectures_are_built(fake_nvcc):
    plan = setup_module().make_plan
    environ = {"PATH": os.environ["PATH"], "CUDACXX": str(fake_nvcc)}
    assert plan(environ).architectures == (80, 120)  # those of the default that it knows
    assert plan({**environ, "FQVAE_CUDA_ARCHS": "12.0; 80"}).architectures == (80, 120)
    with pytest.raises(SystemExit, match=r"FQVAE_CUDA_ARCHS names 75, and this nvcc knows 80, 120\.$"):
        plan({**environ, "FQVAE_BUILD": "cuda", "FQVAE_CUDA_ARCHS": "75 80"})
    assert "names 75" in plan({**environ, "FQVAE_CUDA_ARCHS": "75"}).cuda_reason


@pytest.mark.skipif(not has_compiler(), reason="there is no C++ compiler")
@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("echo 12.0; echo 8.0; echo 12.0", (80, 120)),
        ("echo 8.7", "a GPU here is of 8.7, and this nvcc knows 80, 120"),
        ("echo No devices were found; exit 6", "nvidia-smi names no GPU here (No devices were found)"),
        ("echo driver is gone >&2; exit 9", "nvidia-smi names no GPU here (driver is gone)"),
        (None, "it cannot be seen which GPU is here (nvidia-smi is not on the PATH)"),
    ],
)
def test_the_architectures_of_this_machine(fake_nvcc, tmp_path, script, expected):
    shell = {name: shutil.which(name) for name in ("sh", "c++", "g++", "clang++", "as", "ld")}
    for name, program in shell.items():
        if program is not None:
            (fake_nvcc.parent / name).symlink_to(program)
    if script is not None:
        smi = fake_nvcc.parent / "nvidia-smi"
        query = '[ "$*" = "--query-gpu=compute_cap --format=csv,noheader" ] || exit 1'
        smi.write_text(f"#!/bin/sh\n{query}\n{script}\n")
        smi.chmod(0o755)
    environ = {"PATH": str(fake_nvcc.parent), "CUDACXX": str(fake_nvcc), "FQVAE_CUDA_ARCHS": "native"}
    plan = setup_module().make_plan
    for choice in ("auto", "cuda"):
        asked = {**environ, "FQVAE_BUILD": choice}
        if isinstance(expected, tuple):
            assert plan(asked).architectures == expected
        else:
            name = "FQVAE_BUILD=cuda" if choice == "cuda" else "FQVAE_CUDA_ARCHS=native"
            with pytest.raises(SystemExit) as stopped:
                plan(asked)
            assert stopped.value.code == f"{name} cannot be met: {expected}."


@pytest.mark.skipif(not has_compiler(), reason="there is no C++ compiler")
def test_where_nvcc_is_looked_for(fake_nvcc, tmp_path):
    find = setup_module().find_nvcc
    assert find({"PATH": str(fake_nvcc.parent)}) == str(fake_nvcc)
    assert find({"PATH": "", "CUDA_HOME": str(tmp_path)}) == str(fake_nvcc)
    with pytest.raises(Exception, match=r"there is no CUDA compiler \(nvcc is not on the PATH\)"):
        find({"PATH": str(tmp_path)})


@needs_tools
@pytest.mark.slow
def test_auto_without_a_working_nvcc_builds_the_cpu_kernels(fake_nvcc, source):
    (source / "csrc/bindings.cpp").write_text("#error broken on purpose\n")  # so that the test is short
    _, record, stderr = build_wheel(source, CUDACXX=str(fake_nvcc))
    assert record["built"] == []
    assert "broken on purpose" in record["reason"]  # the second try got as far as the CPU kernels
    assert "the CPU kernels were NOT built" in stderr


@pytest.mark.slow
@needs_tools
@pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not on the PATH")
def test_the_cuda_module(source, tmp_path):
    nvcc = shutil.which("nvcc")
    wheel, record, _ = build_wheel(source, FQVAE_BUILD="cuda", FQVAE_CUDA_ARCHS="90", CUDACXX=nvcc)
    assert record == {"requested": "cuda", "built": ["cpu", "cuda"], "reason": None, "cuda_reason": None}
    wheel.extractall(tmp_path / "installed")
    code = (
        "import torch; from fqvae_kernels.backends import cuda; module = cuda.launcher.module;"
        "assert module.STATS == cuda._STATS_ROWS, module.STATS;"
        "assert 'reduce' in module.KERNELS and isinstance(module.driver_version(), int);"
        "print(module.ARCHITECTURES, '|', cuda.unavailable_reason(None))"
    )
    done = run_python(code, tmp_path / "installed")
    assert done.stdout.startswith("90-real 90-virtual | "), done.stderr
    reasons = ("this PyTorch was built without CUDA", "no GPU", "| None")
    assert any(reason in done.stdout for reason in reasons), done.stdout


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        ("[1/2] a\nx.cpp:3:1: error: no\nx.cpp:4:1: error: more\n", "x.cpp:3:1: error: no"),
        (
            "CMake Error at CMakeLists.txt:4 (find_package):\n  Could NOT find\n  Python\n\n\nx",
            "Could NOT find Python",
        ),
        ("cc1plus: all warnings being treated as errors\n", "cc1plus: all warnings being treated as errors"),
        ("killed\n\n", "killed"),
        ("", "no output"),
    ],
)
def test_first_error_of_a_log(log, expected):
    assert setup_module().first_error(log) == expected
