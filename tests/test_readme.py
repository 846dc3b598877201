"""README.md is short; the autoencoder of docs/getting_started.md reaches the figure that it states."""

import os
import re
import time

import pytest
from _report import link, replace_between
from cases import run_python
from pages import ROOT, blocks, text
from quantize_bench import parse_arguments

import fqvae_kernels

LINES = {"README.md": 120, "CONTRIBUTING.md": 60}


def quick_start() -> str:
    """The autoencoder: a script of its own."""
    (block,) = (block for block in blocks("docs/getting_started.md", "python") if block.mark == "run apart")
    return block.code


def machine_is_busy() -> bool:
    """Whether others are at work here, so that the clock says little."""
    return os.getloadavg()[0] > (os.cpu_count() or 1) + 0.5


def test_quick_start(tmp_path):
    script = tmp_path / "quick_start.py"
    script.write_text(quick_start())
    busy = machine_is_busy()
    begin = time.monotonic()
    done = run_python(str(script), timeout=400)
    took = time.monotonic() - begin
    assert done.returncode == 0, done.stderr
    line = next((line for line in done.stdout.splitlines() if "times lower" in line), None)
    assert line, f"no line 'times lower' in:\n{done.stdout}"
    factor = float(re.search(r"([\d.]+) times lower", line).group(1))
    assert factor > 1.0
    if "cpu" in fqvae_kernels.available_backends() and not busy and not machine_is_busy():
        assert took < 60.0, f"the autoencoder took {took:.0f} s"


def test_quick_start_checks_its_own_figure():
    block = quick_start()
    assert "assert " in block and "ScalarQuantizer" in block and "load_digits" in block


@pytest.mark.parametrize("page", LINES)
def test_first_pages_are_short(page):
    assert text(page).count("\n") <= LINES[page]


def test_readme_has_what_a_newcomer_looks_for():
    readme = text("README.md")
    assert re.search(r"^!\[[^\]]+\]\(", readme, re.MULTILINE), "no picture"
    code = blocks("README.md", "python")[0].code
    assert "ScalarQuantizer" in code and code.count("\n") <= 20
    assert any("fqvae train" in block.code for block in blocks("README.md", "bash"))


def test_the_test_commands_are_the_first_block_below_their_heading():
    """.ci/run takes them from there."""
    below = re.search(r"^## Tests$.*?^```bash\n(.*?)^```", text("README.md"), re.MULTILINE | re.DOTALL)
    assert below is not None
    assert "pytest" in below[1] and 'pip install -e ".[test]"' in below[1]


def test_the_benchmark_writes_into_the_page_on_performance(tmp_path):
    page = parse_arguments(["--readme", "--output", str(tmp_path)]).readme
    assert page == ROOT / "docs" / "performance.md"
    for marker in ("bench", "bars", "bench-cuda"):
        replace_between(page, marker, None)
    assert link(ROOT / "benchmarks" / "results" / "a.png", page) == "../benchmarks/results/a.png"
