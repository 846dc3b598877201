"""benchmarks/rayshapes.py again: what it trains and evaluates, and what it says of the results."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from rayshapes import main
from rayshapes_runs import again
from storedruns import leave

from fqvae.sweep import plan, read_sweep


@pytest.fixture
def kept(tmp_path):
    """The kept results of two runs of `gamma`, the first of which is the sweep's second."""
    jobs = plan(read_sweep("gamma"), tmp_path / "results" / "gamma")
    for job in jobs[1:3]:
        leave(job.folder, job, {"mse": 0.00123})
    return [job.folder for job in jobs[1:3]]


@pytest.fixture
def made(monkeypatch):
    """Stand-ins for `fqvae`, which leave what the kept run has; the words of each call."""
    calls = []

    def run(command, **options):
        words = command[3:]
        calls.append(words)
        assert options["env"]["OMP_NUM_THREADS"] == "1"
        if words[0] == "train":
            folder = Path(words[words.index("--out") + 1])
            shutil.copytree(Path(words[1]).parent, folder)
            made.change(folder / "metrics.json")
        return subprocess.CompletedProcess(command, made.status, "", "why it failed")

    made.change = lambda file: None
    made.status = 0
    made.calls = calls
    monkeypatch.setattr(again.subprocess, "run", run)
    return made


def command(tmp_path, *words):
    return main(["--results", str(tmp_path / "results"), "again", *words])


def test_the_first_run_of_each_experiment(kept, made, tmp_path, capsys):
    assert command(tmp_path) == 0
    assert capsys.readouterr().out == f"{kept[0]}: equal to the last digit\n"
    train, evaluate = made.calls
    assert train[:2] == ["train", str(kept[0] / "config.yaml")] and evaluate[0] == "evaluate"
    assert {"--train=10000", "--test=5000", "--classifier=boosting", "--order=rank"} <= set(evaluate)


def test_what_differs(kept, made, tmp_path, capsys):
    def change(file):
        content = json.loads(file.read_text())
        content["measures"]["mse"]["value"] = 0.001230000000000001
        content["tables"]["nmi"]["value"][0][0] += 1e-16
        del content["measures"]["mig"]
        file.write_text(json.dumps(content))

    made.change = change
    assert command(tmp_path, *map(str, kept), "--jobs", "2") == 1
    lines = capsys.readouterr().out.splitlines()
    said = "mig: 0.5 before, None now; mse: 0.00123 before, 0.001230000000000001 now; nmi: a table"
    assert lines == [f"{place}: {said}" for place in kept]


def test_what_fails(kept, made, tmp_path, capsys):
    made.status = 3
    assert command(tmp_path) == 1
    assert "status 3" in (error := capsys.readouterr().err) and "why it failed" in error
    assert command(tmp_path, str(tmp_path / "nothing")) == 1
    assert command(tmp_path, "--jobs", "0") == 1 and "at least 1" in capsys.readouterr().err
