"""Runs that cannot go on: a clear error, and what is there stays."""

import errno
import re
import shutil
import signal

import pytest
import torch
from blobruns import run, tiny
from blobset import BlobSet

from fqvae.runs import CheckpointError, read_checkpoint
from fqvae.runs.checkpoint import write_plain

pytest.importorskip("lightning")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that was stopped in its 6th step."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        at_step(patch, 5, lambda: signal.raise_signal(signal.SIGINT))
        assert run(folder, tiny()).step == 6
    return folder


@pytest.fixture
def stopped(whole, tmp_path):
    """A copy of it."""
    return shutil.copytree(whole, tmp_path / "run")


def at_step(patch, number, action):
    """Do something in the main thread, in the middle of a step."""
    from fqvae.training import module

    compute = module.compute_losses

    def computing(autoencoder, discriminator, images, place):
        if place.step == number:
            action()
        return compute(autoencoder, discriminator, images, place)

    patch.setattr(module, "compute_losses", computing)


def test_the_bar_shows_the_steps_of_the_whole_run(stopped, monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    run(stopped, tiny(), resume=True)
    shown = re.findall(r"(\d+)/(\d+) ", capsys.readouterr().out)
    assert shown[0] == ("6", "12") and shown[-1] == ("12", "12")


def test_a_second_ctrl_c_ends_at_once(tmp_path, monkeypatch):
    def twice():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    handler = signal.getsignal(signal.SIGINT)
    at_step(monkeypatch, 6, twice)
    with pytest.raises(SystemExit) as exit_:
        run(tmp_path / "run", tiny())
    assert exit_.value.code == 130
    assert signal.getsignal(signal.SIGINT) is handler
    assert read_checkpoint(tmp_path / "run").step == 4


def test_a_second_run_in_the_same_folder(stopped, monkeypatch):
    def another():
        with pytest.raises(
            FileExistsError, match=re.escape(f"{stopped} is in use by a run that is going on")
        ):
            run(stopped, tiny(), resume=True)

    at_step(monkeypatch, 8, another)
    assert run(stopped, tiny(), resume=True).finished


def test_a_folder_that_another_run_has_taken_meanwhile(tmp_path, monkeypatch):
    from fqvae.training.fast import Fast

    folder = tmp_path / "run"

    def other_run(*arguments):
        folder.mkdir()
        (folder / "config.yaml").write_text("theirs")
        return Fast()

    monkeypatch.setattr("fqvae.training.run.choose_fast", other_run)
    with pytest.raises(FileExistsError, match="is no empty folder, and has no run to resume"):
        run(folder, tiny())
    assert [each.read_text() for each in folder.iterdir()] == ["theirs"]


def test_batches_that_do_not_fit_the_processes(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(
        ValueError, match=r"a multiple of 6, 2 part\(s\) for each of 3 process\(es\), but was 16"
    ):
        run(tmp_path / "run", tiny())
    assert not list(tmp_path.iterdir())


def test_a_device_that_does_not_exist(tmp_path):
    from fqvae.training.run import train

    with pytest.raises(ValueError, match=r"device must be one of \('auto', 'cpu', 'cuda'\), but was 'gpu'"):
        train(tiny(), tmp_path / "run", device="gpu", dataset=BlobSet())


def test_a_checkpoint_for_a_folder(stopped):
    with pytest.raises(NotADirectoryError, match=r"last\.ckpt is a checkpoint; to go on .* name its folder"):
        run(stopped / "last.ckpt", tiny(), resume=True)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.pop("optimizer_states"), r"states of 2 optimizer\(s\) to go on from, but has 0"),
        (lambda c: c["optimizer_states"].pop(), r"states of 2 optimizer\(s\) to go on from, but has 1"),
        (
            lambda c: c["optimizer_states"][1]["state"][0].update(exp_avg_sq=torch.zeros(3)),
            r"optimizer 1, exp_avg_sq 0 must have shape \(16, 32\), but has \(3,\)",
        ),
        (
            lambda c: c["state_dict"].update({"autoencoder.encoder.0.bias": torch.zeros(7)}),
            r"autoencoder.encoder.0.bias must have shape \(4,\), but has \(7,\)",
        ),
        (lambda c: c["state_dict"].pop("discriminator.1.bias"), "discriminator.1.bias .*, but is missing"),
        (lambda c: c["fqvae"].pop("usage"), r"usage must have shape \(4, 8\), but is missing"),
    ],
)
def test_a_checkpoint_that_lacks_something(stopped, change, words):
    """Of the optimizers' states PyTorch would not notice it, and read beyond their ends."""
    content = torch.load(stopped / "last.ckpt", weights_only=True)
    change(content)
    write_plain(content, stopped / "last.ckpt")
    before = (stopped / "last.ckpt").read_bytes()
    with pytest.raises(CheckpointError, match=words):
        run(stopped, tiny(), resume=True)
    assert (stopped / "last.ckpt").read_bytes() == before


@pytest.mark.parametrize("damage", [bytes(500), b"\x9a\xff", b"a,b\n1,2\n", b"step,loss\nx,1\n"])
def test_damaged_metrics(stopped, damage):
    (stopped / "metrics.csv").write_bytes(damage)
    with pytest.raises(ValueError, match=r"metrics\.csv is damaged \(.*\); move it away to go on without it"):
        run(stopped, tiny(), resume=True)
    assert (stopped / "metrics.csv").read_bytes() == damage
    (stopped / "metrics.csv").write_bytes(b"")
    run(stopped, tiny(), resume=True)
    assert (stopped / "metrics.csv").read_text(encoding="utf-8").startswith("step,loss,")


def test_a_disk_that_fills_up(tmp_path, monkeypatch):
    def full(*arguments, **named):
        raise OSError(errno.ENOSPC, "No space left on device")

    at_step(monkeypatch, 9, lambda: monkeypatch.setattr("fqvae.training.loggers.CsvFile.log_metrics", full))
    with pytest.raises(OSError, match=re.escape(f"No space left on device: '{tmp_path / 'run'}'")):
        run(tmp_path / "run", tiny())
    assert read_checkpoint(tmp_path / "run").step == 8
    monkeypatch.undo()
    assert run(tmp_path / "run", tiny(), resume=True).finished


@pytest.mark.parametrize("state", [0, 1])
def test_nothing_depends_on_the_state_of_pytorchs_generator(state, whole, tmp_path, monkeypatch):
    torch.manual_seed(state)
    at_step(monkeypatch, 5, lambda: signal.raise_signal(signal.SIGINT))
    run(tmp_path / "run", tiny())
    ours, theirs = (torch.load(each / "last.ckpt", weights_only=True) for each in (tmp_path / "run", whole))
    assert all(torch.equal(value, theirs["state_dict"][name]) for name, value in ours["state_dict"].items())
