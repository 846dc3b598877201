"""What a build makes: what goes into an sdist and a wheel, what their import says, what the module links.

The test that compiles everything is slow: `pytest -m slow tests/test_build_packages.py`.
"""

import json
import re
import shutil
import sys
import tarfile
from pathlib import Path

import pytest
from building import MODULE, NO_COMPILER, ROOT, build_wheel, hook, needs_tools, run, run_python
from building import source as source  # a fixture


def test_none_builds_pure_python_with_types_and_without_tests(source):
    # What an earlier editable install left in the source tree must not be packed.
    (source / "fqvae_kernels" / MODULE).write_bytes(b"stale")
    (source / "fqvae_kernels" / "_build.json").write_text(
        '{"requested": "cpu", "built": ["cpu"], "reason": null}'
    )
    wheel, record, stderr = build_wheel(source, FQVAE_BUILD="none")
    names = set(wheel.namelist())
    assert record["requested"] == "none"
    assert record["built"] == []
    assert "NOT built" not in stderr
    assert {"fqvae_kernels/py.typed", "fqvae_kernels/backends/reference.py", "fqvae/__init__.py"} <= names
    assert not [name for name in names if "_native." in name]
    assert {name.split("/")[0].split("-")[0] for name in names} == {"fqvae", "fqvae_kernels"}


def test_an_editable_none_removes_the_module_of_an_earlier_build(source):
    stale = source / "fqvae_kernels" / MODULE
    stale.write_bytes(b"stale")
    done = hook("build_editable", source, source / "dist", FQVAE_BUILD="none")
    assert done.returncode == 0, done.stderr
    assert not stale.exists()
    assert json.loads((source / "fqvae_kernels/_build.json").read_text())["requested"] == "none"


def test_the_sdist_holds_what_a_build_and_the_tests_need(source):
    (source / "fqvae_kernels" / MODULE).write_bytes(b"stale")
    (source / "fqvae_kernels" / "_build.json").write_text("{}")
    done = hook("build_sdist", source, source / "dist", FQVAE_BUILD="none")
    assert done.returncode == 0, done.stderr
    (path,) = (source / "dist").glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    sources = {str(p.relative_to(source)) for p in source.glob("csrc/**/*") if p.is_file()}
    python = {str(p.relative_to(source)) for p in source.glob("fqvae*/**/*.py")}
    folders = ("benchmarks", "examples", "tools")
    imported = [path for folder in folders for path in source.glob(f"{folder}/**/*.py")]
    pages = [*source.glob("docs/**/*.md"), source / "mkdocs.yml"]
    tests = {str(p.relative_to(source)) for p in [*source.glob("tests/*.py"), *imported, *pages]}
    build = {"setup.py", "pyproject.toml", "CMakeLists.txt", "LICENSE", "README.md", "fqvae_kernels/py.typed"}
    assert sources
    assert sources | python | tests | build <= names
    assert not {"fqvae_kernels/" + MODULE, "fqvae_kernels/_build.json"} & names


def test_the_native_sources_include_nothing_of_torch():
    for path in ROOT.glob("csrc/**/*"):
        if path.is_file():
            assert not re.search(r"#\s*include\s*[<\"](torch|ATen|c10|omp)\b", path.read_text()), path


def test_import_prints_nothing(tmp_path):
    done = run(sys.executable, "-c", "import fqvae_kernels", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_without_the_native_module_the_reference_serves(source):
    hook("build_editable", source, source / "dist", **NO_COMPILER)
    code = (
        "import torch, fqvae_kernels as f; assert f.available_backends() == ('reference',);"
        "print(f.gumbel_quantize(torch.zeros(3), torch.ones(4), hard=True).quantized.tolist())"
    )
    done = run_python(code, source)
    assert (done.stdout, done.stderr) == ("[1.0, 1.0, 1.0]\n", "")


def test_the_command_line_says_why_the_kernels_are_missing(source):
    hook("build_editable", source, source / "dist", **NO_COMPILER)
    done = run_python("import runpy; runpy.run_module('fqvae_kernels', run_name='__main__')", source)
    assert done.returncode == 0, done.stderr
    assert "there is no C++ compiler (CXX=/nonexistent/c++ names no program)" in done.stdout


@pytest.mark.skipif(
    sys.platform != "linux" or not shutil.which("readelf"), reason="reads ELF files with readelf"
)
def test_the_native_module_links_only_the_system(source):
    native = pytest.importorskip("fqvae_kernels._native", reason="the native module is not built")
    done = run("readelf", "-d", native.__file__, cwd=source)
    needed = set(re.findall(r"NEEDED.*\[(.*?)\.so", done.stdout))
    assert needed <= {
        "libstdc++",
        "libm",
        "libgcc_s",
        "libc",
        "libdl",
        "libpthread",
        "ld-linux-x86-64",
        "ld-linux-aarch64",
    }


@pytest.mark.slow
@needs_tools
def test_sdist_to_wheel_to_import(source, tmp_path):
    done = hook("build_sdist", source, source / "dist")
    assert done.returncode == 0, done.stderr
    (path,) = (source / "dist").glob("*.tar.gz")
    with tarfile.open(path) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    wheel, record, _ = build_wheel(unpacked, FQVAE_BUILD="cpu")
    asked = "FQVAE_BUILD=cpu asked for the CPU kernels alone"
    assert record == {"requested": "cpu", "built": ["cpu"], "reason": None, "cuda_reason": asked}
    assert {f"fqvae_kernels/{MODULE}", "fqvae_kernels/py.typed"} <= set(wheel.namelist())
    wheel.extractall(tmp_path / "installed")
    code = "import fqvae_kernels as f; print(f.__file__, *f.available_backends())"
    done = run_python(code, tmp_path / "installed")
    place, *backends = done.stdout.split()
    assert Path(place).is_relative_to(tmp_path / "installed")
    assert backends == ["cpu", "reference"]
    check_weak_symbols(unpacked)

    # A second build of the same tree compiles nothing.
    again = hook("build_editable", unpacked, tmp_path, FQVAE_BUILD="cpu")
    assert "no work to do" in again.stdout, again.stdout
    assert (unpacked / "fqvae_kernels" / MODULE).exists()


def check_weak_symbols(tree: Path) -> None:
    """No object of a newer instruction set defines an inline function that other objects may define too.

    The linker keeps one copy of such a function, from whichever object, and that may be one that an older
    processor cannot run.
    """
    for path in tree.glob("build/cmake-*/**/kernels_avx*.o"):
        done = run("nm", "-C", path, cwd=tree)
        weak = [
            line.split(maxsplit=2)[2] for line in done.stdout.splitlines() if re.match(r"\w+ [WVu] ", line)
        ]
        kind = re.search(r"kernels_(avx\d+)", path.name)[1]
        # DW.ref.* are pointers to the C++ runtime's own functions.
        assert not [name for name in weak if kind not in name.lower() and not name.startswith("DW.ref.")], (
            path
        )
