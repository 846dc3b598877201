"""The workflows: they fit GitHub's schema, pin what they use, and do what README and pyproject say."""

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted(ROOT.glob(".github/workflows/*.yml"))

yaml = pytest.importorskip("yaml")
if not FILES:
    pytest.skip("an sdist has no workflows", allow_module_level=True)


def jobs(name: str) -> dict:
    return yaml.safe_load((ROOT / ".github/workflows" / name).read_text())["jobs"]


def commands(job: dict) -> str:
    return "\n".join(step["run"] for step in job["steps"] if "run" in step)


def refused_by_schema(path: Path) -> str:
    """What GitHub's schema, which check-jsonschema carries, has against the file; empty if nothing."""
    if importlib.util.find_spec("check_jsonschema") is None:
        pytest.skip("check-jsonschema is missing: it is in the extra `dev`")
    options = ("--builtin-schema", "vendor.github-workflows")
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", *options, path], capture_output=True, text=True
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_they_fit_the_schema(path):
    assert refused_by_schema(path) == ""


def test_the_schema_finds_a_slip(tmp_path):
    slip = tmp_path / "slip.yml"
    slip.write_text((FILES[0]).read_text().replace("runs-on:", "run-on:"))
    assert "runs-on" in refused_by_schema(slip)


@pytest.mark.skipif(not shutil.which("actionlint"), reason="actionlint is not on the PATH")
def test_actionlint_finds_nothing():
    done = subprocess.run(["actionlint", *FILES], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_actions_are_pinned_by_a_full_version(path):
    used = re.findall(r"uses: *(\S+)", path.read_text())
    assert used
    assert [action for action in used if not re.fullmatch(r"[\w/-]+@v\d+\.\d+\.\d+", action)] == []


def test_the_tests_are_those_of_the_readme():
    section = (ROOT / "README.md").read_text().split("## Tests\n")[1]
    printed = re.search(r"^```bash\n(.*?)^```", section, re.MULTILINE | re.DOTALL)[1]
    assert printed in commands(jobs("tests.yml")["tests"]) + "\n"


def test_every_python_that_has_wheels_runs_the_tests():
    text = (ROOT / "pyproject.toml").read_text()
    wheels = re.search(r'^build = "(.*)"$', text, re.MULTILINE)[1]
    tested = jobs("tests.yml")["tests"]["strategy"]["matrix"]["python"]
    assert wheels == " ".join(f"cp{version.replace('.', '')}-*" for version in tested)
    assert f'requires-python = ">={tested[0]}"' in text


def test_lint_is_that_of_the_local_run():
    local, remote = (ROOT / ".ci/run").read_text(), commands(jobs("tests.yml")["lint"])
    for command in ("ruff check .", "ruff format --check .", "mypy", "check-jsonschema", "clang-format"):
        assert command in local and command in remote


def test_only_a_tag_publishes():
    every = jobs("wheels.yml")
    allowed = {name for name, job in every.items() if "id-token" in job.get("permissions", {})}
    assert allowed == {"publish"}
    assert "startsWith(github.ref, 'refs/tags/v')" in every["publish"]["if"]
    assert set(every["publish"]["needs"]) == {"wheels", "sdist"}
