"""A sweep of real runs that is killed, interrupted, and started again."""

import csv
import fcntl
import signal
import subprocess
import sys
import time

import pytest

from fqvae.runs.checkpoint import read_checkpoint

pytest.importorskip("lightning")

TINY = """
preset: smoke
seeds: [0, 1]
settings:
  model.network.channels: 4
  model.network.hidden: 16
  model.latent.size: 4
  model.discriminator.width: 16
  batch_size: 16
  steps: 100
  log_every: 5
  checkpoint_every: 10
evaluate: {train: 200, test: 100, classifier: histogram}
runs:
  factorqvae: {}
  gamma 0: {model.weights.total_correlation: 0}
"""
# SIGINT means KeyboardInterrupt, whatever it means in the process that runs the tests.
MAIN = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from fqvae.cli import main; sys.exit(main(sys.argv[1:]))"
)


def wait_for(condition, seconds=240.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.02)


def wait_for_the_children(folder):
    """They hold the locks of their logs for as long as they live."""
    for log in folder.glob("*/seed-*.log"):
        with open(log, "ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)


def state(folder):
    """All checkpoints and scores that are there, with the times at which they were written."""
    files = [*folder.glob("*/seed-*/last.ckpt"), *folder.glob("*/seed-*/metrics.json")]
    return {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in files}


def commands(log):
    return [line.split(" ", 4)[4] for line in log.read_text().splitlines() if line.startswith("$ ")]


@pytest.mark.slow
def test_killed_in_the_middle_and_started_again(tmp_path):
    (tmp_path / "tiny.yaml").write_text(TINY)
    out = tmp_path / "out"

    def start(*options):
        words = ["sweep", str(tmp_path / "tiny.yaml"), "--out", str(out), "--device", "cpu", *options]
        return subprocess.Popen(
            [sys.executable, "-c", MAIN, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    # The order is seed 0 of both, then seed 1 of both. Killed while the second is in training.
    first, second, third = (
        out / name for name in ("factorqvae/seed-0", "gamma 0/seed-0", "factorqvae/seed-1")
    )
    sweep = start()
    wait_for(lambda: (second / "last.ckpt").exists())
    sweep.kill()
    assert sweep.communicate()[0] == "" and not (out / "comparison.md").exists()
    wait_for_the_children(out)
    finished = {file: written for file, written in state(out).items() if file.parent == first}
    assert set(finished) == {first / "last.ckpt", first / "metrics.json"}
    assert 0 <= read_checkpoint(second).step < 100 and not third.exists()

    # Two at a time, and interrupted while the third is in training.
    sweep = start("--jobs", "2")
    wait_for(lambda: (third / "last.ckpt").exists())
    sweep.send_signal(signal.SIGINT)
    printed, errors = sweep.communicate(timeout=120)
    assert sweep.returncode == 130 and printed == ""
    assert errors.endswith("interrupted; the same command goes on with it\n") and "Traceback" not in errors
    assert read_checkpoint(third).step < 100
    assert state(out).items() >= finished.items()

    sweep = start("--jobs", "2")
    printed, errors = sweep.communicate(timeout=400)
    assert sweep.returncode == 0, errors
    assert state(out).items() >= finished.items()
    assert [
        f"{name}, seed {seed}: step 100 of 100, evaluated" in errors
        for name in ("factorqvae", "gamma 0")
        for seed in (0, 1)
    ] == [True] * 4
    assert all(
        read_checkpoint(out / name / f"seed-{s}").step == 100
        for name in ("factorqvae", "gamma 0")
        for s in (0, 1)
    )
    # The first was trained once; the second and third were resumed.
    assert [each.split()[0] for each in commands(first.with_suffix(".log"))].count("train") == 1
    for run in (second, third):
        began, *went_on = [each for each in commands(run.with_suffix(".log")) if each.startswith("train")]
        assert "--out" in began and went_on and all("--resume" in each for each in went_on)

    table = (out / "comparison.md").read_text()
    assert table in printed
    rows = [line.split("|")[1:3] for line in table.splitlines() if line.startswith("|")][2:]
    assert [[cell.strip() for cell in row] for row in rows] == [["factorqvae", "2"], ["gamma 0", "2"]]
    with open(out / "comparison.csv", newline="") as file:
        assert [(row["model"], row["seeds"]) for row in csv.DictReader(file)] == [
            ("factorqvae", "2"),
            ("gamma 0", "2"),
        ]

    # Once more, with one that cannot go on: it is named, the others are not repeated, the table has those.
    damaged = second / "last.ckpt"
    damaged.write_bytes(damaged.read_bytes()[:5000])
    before = state(out)
    sweep = start()
    printed, errors = sweep.communicate(timeout=400)
    assert sweep.returncode == 1 and state(out) == before and len(before) == 8
    assert errors.splitlines()[-1].startswith(f"fqvae: error: gamma 0, seed 0: {damaged} is damaged")
    rows = [line.split("|")[1:3] for line in printed.splitlines() if line.startswith("|")][2:]
    assert [[cell.strip() for cell in row] for row in rows] == [["factorqvae", "2"], ["gamma 0", "1"]]
