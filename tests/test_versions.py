"""tools/versions.sh tries the oldest releases that pyproject.toml declares."""

import pathlib
import re
import shutil
import subprocess
import sys

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:  # pytest needs it there
    import tomli as tomllib

ROOT = pathlib.Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "tools" / "versions.sh"


def tried(name):
    """The releases of the three pairs: of PYTHON or of TORCH."""
    (inside,) = re.findall(rf"^declare -A {name}=\((.*)\)$", SCRIPT.read_text(), re.MULTILINE)
    return dict(re.findall(r"\[(\w+)\]=([\d.]+)", inside))


def test_the_oldest_pair_is_what_the_package_declares():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    python, torch = tried("PYTHON"), tried("TORCH")
    assert set(python) == set(torch) == {"oldest", "middle", "newest"}
    assert project["requires-python"] == f">={python['oldest']}"
    (declared,) = (line for line in project["dependencies"] if line.startswith("torch"))
    assert declared == f"torch>={torch['oldest'].rpartition('.')[0]}"
    assert (
        f"Python {python['oldest']} and PyTorch {declared[7:]} or later" in (ROOT / "README.md").read_text()
    )


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_a_pair_that_does_not_exist():
    done = subprocess.run(["bash", str(SCRIPT), "older"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "there is no pair 'older': it may be oldest, middle or newest\n"
