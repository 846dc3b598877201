"""The README's quick start runs as it is printed and reaches the figure that it states."""

import os
import pathlib
import re
import time

from cases import run_python

import fqvae_kernels

README = pathlib.Path(__file__).parent.parent / "README.md"


def quick_start() -> str:
    """The first fenced Python block under the heading "Quick start"."""
    section = re.search(r"^#+ Quick start\s*$(.*?)(?=^#+ |\Z)", README.read_text(), re.MULTILINE | re.DOTALL)
    # A line of the block may begin with a hash too, so the block is looked for from the heading on.
    assert section, "the README has no heading 'Quick start'"
    block = re.search(
        r"^```python\n(.*?)^```", README.read_text()[section.start() :], re.MULTILINE | re.DOTALL
    )
    assert block, "no Python block under 'Quick start'"
    return block.group(1)


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
        assert took < 60.0, f"the quick start took {took:.0f} s"


def test_quick_start_checks_its_own_figure():
    block = quick_start()
    assert "assert " in block and "ScalarQuantizer" in block and "load_digits" in block
