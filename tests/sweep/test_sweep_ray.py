"""A sweep on a Ray cluster: a node that is killed, an interrupt, and options that do not go together."""

import importlib.util
import os
import pathlib
import re
import signal
import subprocess
import sys

import pytest
from test_sweep_killed import MAIN, TINY, commands, wait_for

from fqvae.cli import main
from fqvae.runs.checkpoint import read_checkpoint
from fqvae.sweep import Job, cluster

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None,
    reason="the package ray is not installed",
)


def environment():
    """Like a worker of Ray, which has one thread for one CPU; nothing is reported to anybody."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}


def start(file, out, *options):
    words = ["sweep", str(file), "--out", str(out), "--device", "cpu", *options]
    return subprocess.Popen(
        [sys.executable, "-c", MAIN, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )


@pytest.fixture
def two_nodes():
    """The process that holds the cluster, and the cluster's address."""
    script = pathlib.Path(__file__).with_name("twonodes.py")
    holder = subprocess.Popen(
        [sys.executable, str(script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment(),
    )
    try:
        address = holder.stdout.readline().strip()
        assert address.startswith("127.0.0.2:")
        yield holder, address
    finally:
        holder.stdin.close()
        holder.wait(60)
        holder.stdout.close()


@needs_ray
@pytest.mark.slow
def test_a_node_is_killed(two_nodes, tmp_path):
    holder, address = two_nodes
    file = tmp_path / "tiny.yaml"
    file.write_text(TINY)
    out = tmp_path / "ray"
    sweep = start(file, out, "steps=400", "--ray", address)
    running = [out / name / "seed-0" for name in ("factorqvae", "gamma 0")]
    wait_for(lambda: sweep.poll() is not None or all((run / "last.ckpt").exists() for run in running))
    assert sweep.poll() is None, sweep.communicate()[1]
    holder.stdin.write("kill\n")
    holder.stdin.flush()
    assert holder.stdout.readline() == "killed\n"
    assert any(read_checkpoint(run).step < 400 for run in running)
    _, errors = sweep.communicate(timeout=500)
    assert sweep.returncode == 0, errors

    # One of the two was at work on the node that died, and went on at its checkpoint on the other.
    trained = {
        run: [each for each in commands(run.with_suffix(".log")) if "train " in each] for run in running
    }
    assert sorted(len(each) for each in trained.values()) == [1, 2]
    began, went_on = max(trained.values(), key=len)
    assert "--out" in began and "--resume" in went_on
    folders = [out / name / f"seed-{seed}" for name in ("factorqvae", "gamma 0") for seed in (0, 1)]
    assert all(read_checkpoint(folder).step == 400 for folder in folders)

    # The same by processes of this machine.
    local = start(file, tmp_path / "local", "steps=400", "--jobs", "2")
    _, errors = local.communicate(timeout=500)
    assert local.returncode == 0, errors
    for name in ("comparison.md", "comparison.csv"):
        assert (out / name).read_text() == (tmp_path / "local" / name).read_text()
    assert (out / "comparison.html").exists() and "Left out" not in (out / "comparison.md").read_text()


@needs_ray
@pytest.mark.slow
def test_an_interrupt_reaches_the_runs(tmp_path):
    file = tmp_path / "tiny.yaml"
    file.write_text(TINY)
    sweep = start(file, tmp_path / "out", "steps=100000", "--ray", "local", "--cpus", "0.5")
    run = tmp_path / "out" / "factorqvae" / "seed-0"
    wait_for(lambda: sweep.poll() is not None or (run / "last.ckpt").exists())
    assert sweep.poll() is None, sweep.communicate()[1]
    before = read_checkpoint(run).step
    sweep.send_signal(signal.SIGINT)
    _, errors = sweep.communicate(timeout=200)
    assert sweep.returncode == 130
    assert errors.splitlines()[-1] == "fqvae: interrupted; the same command goes on with it"
    # The training has written its checkpoint, and nothing has begun since.
    step = read_checkpoint(run).step
    assert before <= step < 100000
    assert re.search("interrupted at step .* go on with", run.with_suffix(".log").read_text())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--cpus", "2"], "--cpus goes with --ray only; --jobs says how many runs at a time"),
        (["--gpus", "1", "--jobs", "2"], "--gpus goes with --ray only"),
        (
            ["--ray", "local", "--jobs", "2"],
            "--jobs does not go with --ray; --cpus and --gpus say what a run",
        ),
        (["--ray", "local", "--cpus", "-1"], "--cpus must be at least 0, but was -1"),
        (["--ray", "local", "--gpus", "nan"], "--gpus must be at least 0, but was nan"),
    ],
)
def test_options(options, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["sweep", "first", *options]) == 1
    assert f"fqvae: error: {words}" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_without_ray(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["sweep", "first", "--ray", "local"]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error == (
        "fqvae: error: --ray: the package ray is missing; the extra 'cluster' has it: "
        'pip install "fqvae_kernels[cluster]"'
    )


def test_on_a_node(tmp_path):
    """What a task does, without Ray: all stages, the reason of a failure, and on an interrupt a stop."""

    class Stages:
        threads = None

        def stages(self, job):
            yield "training", [sys.executable, "-S", "-c", "print('no'); raise SystemExit(3)"]

    class Interrupted(Stages):
        def stages(self, job):
            yield "training", [sys.executable, "-S", "-c", "import time; time.sleep(60)"]
            raise AssertionError("a second stage was asked for")

    class Good(Stages):
        def stages(self, job):
            yield "training", [sys.executable, "-S", "-c", ""]
            yield "evaluating", [sys.executable, "-S", "-c", ""]

    def job(name):
        return Job(name, 0, tmp_path / name / "seed-0", None, ())

    assert cluster.run_on_node(job("a"), Good()) is None
    assert cluster.run_on_node(job("b"), Stages()) == "no"
    previous = signal.signal(signal.SIGALRM, signal.default_int_handler)  # as Ray does when it cancels
    try:
        signal.setitimer(signal.ITIMER_REAL, 1.0)
        with pytest.raises(KeyboardInterrupt):
            cluster.run_on_node(job("c"), Interrupted())
    finally:
        signal.signal(signal.SIGALRM, previous)
    assert "KeyboardInterrupt" in job("c").log.read_text()
