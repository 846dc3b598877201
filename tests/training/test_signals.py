"""SIGTERM, SIGHUP and Ctrl-C, as real signals: a checkpoint, one line, a status that is no success."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from blobruns import run, tiny

from fqvae.cli import main
from fqvae.runs import read_checkpoint
from fqvae.signals import Terminated, listen, restore

pytest.importorskip("lightning")

SCRIPT = Path(__file__).with_name("signalled.py")
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]


def script(*arguments, launch=()):
    command = [sys.executable, *launch, str(SCRIPT), *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    # What a run tells every half minute, on a machine that is that slow, is no concern here.
    result.stderr = re.sub(r"(?m)^(step|the whole takes|measuring) .*\n", "", result.stderr)
    return result


@pytest.mark.parametrize(
    ("name", "status", "words"),
    [
        ("SIGTERM", 143, "ended by SIGTERM"),
        ("SIGHUP", 129, "ended by SIGHUP"),
        ("SIGINT", 130, "interrupted"),
    ],
)
def test_a_signal_in_training(name, status, words, tmp_path):
    folder = tmp_path / "run"
    result = script(name, 0, 7, folder)
    checkpoint = read_checkpoint(folder)
    assert result.returncode == status, result.stderr
    assert result.stderr == (
        f"{words} at step {checkpoint.step} of 12; go on with: fqvae train --resume {folder}\n"
    )
    assert 5 <= checkpoint.step <= 7 and checkpoint.step != 4  # not the interval's
    assert not (folder / "reconstructions.png").exists()
    assert run(folder, tiny(), resume=True).finished


@pytest.mark.parametrize("number", [1, 14, 15])
def test_a_signal_before_and_after_the_training(number, tmp_path):
    """The set is asked 13 times until the 12 steps are taken, then for TensorBoard, then to be measured."""
    result = script("SIGTERM", 0, number, tmp_path / "run", "checkpoint_every=50")
    assert result.returncode == 143
    assert result.stderr.startswith(
        {1: "ended by SIGTERM at step 1 ", 14: "ended by SIGTERM at step 12 ", 15: "fqvae: ended by SIGTERM"}[
            number
        ]
    )
    assert result.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_one_of_two_processes_is_sent_a_signal(rank, tmp_path):
    folder = tmp_path / "run"
    result = script("SIGTERM", rank, 7, folder, launch=TORCHRUN)
    step = read_checkpoint(folder).step
    assert result.returncode != 0 and 5 <= step <= 7
    assert f"ended by SIGTERM at step {step} of 12" in result.stderr
    # torchrun ends a process that is the last, by -15 if that is already on its way out.
    codes = re.findall(r"exitcode  : (-?\d+)", result.stderr)
    assert codes[-1] == "143" and set(codes) <= {"143", "-15"}, result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_torchrun_is_sent_a_signal(name, tmp_path):
    folder = tmp_path / "run"
    command = [sys.executable, *TORCHRUN, str(SCRIPT), name, "0", "0", str(folder), "steps=100000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as launched:
        for line in launched.stdout:
            if line == "batch 9\n":
                break
        launched.send_signal(getattr(signal, name))
        _, errors = launched.communicate(timeout=100)
    step = read_checkpoint(folder).step
    assert launched.returncode != 0 and step >= 7
    words = {"SIGTERM": "ended by SIGTERM", "SIGINT": "interrupted"}[name]
    assert f"{words} at step {step:,} of 100,000; go on with" in errors, errors


def test_handlers_are_put_back():
    before = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)]
    assert main(["codes", "nothing"]) == 1
    assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)] == before


def test_nohup_stays_in_force():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        replaced = listen((signal.SIGHUP, signal.SIGTERM), lambda number, frame: None)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN and list(replaced) == [signal.SIGTERM]
        restore(replaced)
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (KeyboardInterrupt(), 130, "fqvae: interrupted"),
        (Terminated(signal.SIGTERM), 143, "fqvae: ended by SIGTERM\n"),
    ],
)
@pytest.mark.parametrize("command", ["report", "codes", "traverse", "plot", "train", "evaluate", "sweep"])
def test_every_command_ends_with_one_line(command, error, status, line, monkeypatch, capsys, tmp_path):
    def interrupted(*arguments, **named):
        raise error

    for name in ("fqvae.runs.checkpoint.checkpoint_path", "fqvae.cli.evaluate.read_checkpoint"):
        monkeypatch.setattr(name, interrupted, raising=False)
    monkeypatch.setattr("fqvae.runs.checkpoint.read_checkpoint", interrupted)
    monkeypatch.setattr("fqvae.runs.run.checkpoint_path", interrupted)
    monkeypatch.setattr("fqvae.cli.train.load_preset", interrupted)
    monkeypatch.setattr("fqvae.cli.sweep.read_sweep", interrupted)
    assert main([command, "smoke"]) == status
    said = capsys.readouterr().err
    assert said.startswith(line) and said.count("\n") == 1


def test_ctrl_c_while_pytorch_is_imported(tmp_path):
    """In a process of its own, which is sent the signal when it begins to import torch."""
    (tmp_path / "torch.py").write_text(
        "import os, signal, time\n"
        # Whoever runs the tests in the background of a shell lets them ignore it.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "os.kill(os.getpid(), signal.SIGINT)\ntime.sleep(5)\n"
    )
    for command in (
        ["-m", "fqvae", "codes", "x"],
        ["-c", "import sys; from fqvae.cli import main; sys.exit(main(['plot']))"],
    ):
        environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[2]}"}
        result = subprocess.run(
            [sys.executable, *command], capture_output=True, text=True, check=False, env=environment
        )
        assert (result.returncode, result.stderr) == (130, "fqvae: interrupted\n")
