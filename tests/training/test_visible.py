"""What is told while a run trains: lines, an estimate, TensorBoard's pictures, Weights & Biases."""

import re
import sys
import types

import numpy as np
import pytest
import torch
from blobruns import run, tiny
from blobset import BlobSet

pytest.importorskip("lightning")

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fqvae.cli import main
from fqvae.training import notes
from fqvae.training.board import TIMES, BoardPictures, _spread
from fqvae.training.module import Training
from fqvae.training.notes import Notes, duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "1 s"), (50, "50 s"), (150, "2 min"), (2 * 3600 + 1, "2 hours"), (1_728_000, "20 days")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (["model.latent.estimator=reinmax"], "falls to 0.37: temperature_steps=1000000000 holds"),
        (["model.latent.estimator=reinmax", "temperature_steps=1000000000"], ""),
        (["model.latent.estimator=straight_through"], ""),
    ],
)
def test_a_falling_temperature_is_told_of_where_the_gradient_is_then_wrong(settings, told, capsys):
    module = Training(tiny("qvae", "steps=5000", *settings), BlobSet(), np.arange(200))
    Notes(False).on_train_start(None, module)
    assert (told in capsys.readouterr().err) if told else not capsys.readouterr().err


@pytest.mark.parametrize("bar", [False, True])
def test_the_lines_of_a_slow_run(bar, monkeypatch, capsys):
    """A run whose steps take 35 s: 50,000 of them are 20 days; then one whose steps take a tenth of that."""
    now = [1000.0]
    monkeypatch.setattr(notes.time, "monotonic", lambda: now[0])
    module = Training(tiny("qvae", "steps=50000", "batch_size=70"), BlobSet(), np.arange(200))
    module.last_losses = {"loss": 0.25, "kl": 1 / 3}
    told = Notes(bar)
    for step, seconds in enumerate([35.0] * 4 + [3.5] * 20, 1):
        module.step = step
        now[0] += seconds
        told.on_train_batch_end(None, module, None, None, 0)
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert lines[0].strip() == "the whole takes about 20 days: 50,000 steps of 35 s" and captured.out == ""
    if bar:
        assert len(lines) == 1
        return
    assert lines[1:4] == [
        f"step {step} of 50,000: loss 0.25, kl 0.3333; 2 images/s, 20 days left" for step in (2, 3, 4)
    ]
    assert lines[4:] == [
        f"step {step} of 50,000: loss 0.25, kl 0.3333; 20 images/s, 49 hours left".replace(
            "49 hours", "2 days"
        )
        for step in (13, 22)
    ]
    assert told.told == 5


def test_a_short_run_tells_nothing_and_a_long_one_its_lines(tmp_path, monkeypatch, capsys):
    run(tmp_path / "short", tiny())
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(notes, "EVERY", 0.0)
    monkeypatch.setattr(notes, "FIRST", 0.0)
    monkeypatch.setattr(notes, "SHORT", 0.0)
    run(tmp_path / "long", tiny())
    lines = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"the whole takes about \d+ s: 12 steps of [\d.e-]+ s", lines[0])
    assert [re.match(r"step (\d+) of 12: loss 0\.", line)[1] for line in lines[1:-1]] == list(
        map(str, range(2, 12))
    )
    assert lines[-1] == "measuring on 25 held-out images"


def test_the_bar_has_no_number_of_lightnings_and_shows_the_measurement(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    run(tmp_path / "run", tiny())
    captured = capsys.readouterr()
    assert "loss=" in captured.out and "v_num" not in captured.out
    assert "encoding:" in captured.err
    assert not (tmp_path / "run" / "hparams.yaml").exists()


def events(folder):
    found = EventAccumulator(str(folder), size_guidance={"images": 0, "histograms": 0, "scalars": 0})
    found.Reload()
    return found


@pytest.mark.parametrize("model", ["factorqvae", "qlae", "vae"])
def test_pictures_for_tensorboard(model, tmp_path):
    run(tmp_path / "run", tiny(model))
    found = events(tmp_path / "run")
    for tag, size in (("reconstructions", (8 * 18, 4 * 18)), ("traversals", (8 * 18, 4 * 18))):
        images = found.Images(tag)
        assert [each.step for each in images] == [4, 8, 12]
        assert {(each.width, each.height) for each in images} == {size}
    assert set(found.Tags()["histograms"]) == {f"codes/{latent:02d}" for latent in range(4)}
    histogram = found.Histograms("codes/00")[-1].histogram_value
    assert histogram.num == 25  # the held-out images
    assert len(found.Scalars("loss")) == 12


def test_pictures_are_bounded_and_change_nothing(tmp_path, monkeypatch):
    config = tiny("factorqvae", "steps=30", "checkpoint_every=1", "model.latent.size=20")
    run(tmp_path / "run", config)
    found = events(tmp_path / "run")
    assert len(found.Images("traversals")) <= TIMES and found.Images("traversals")[-1].step == 30
    assert found.Images("traversals")[0].height == 16 * 18 and len(found.Tags()["histograms"]) == 16

    monkeypatch.setattr(BoardPictures, "write", lambda self, model, step: None)
    run(tmp_path / "without", config)
    ours, theirs = (
        torch.load(tmp_path / name / "last.ckpt", weights_only=True)["state_dict"]
        for name in ("run", "without")
    )
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_a_traversal_takes_the_codes_in_use_in_the_order_of_their_values():
    module = Training(tiny("qvae"), BlobSet(), np.arange(200))
    model = module.autoencoder
    with torch.no_grad():
        model.latent.codebook.copy_(torch.tensor([3.0, 1, 2, 0, 7, 6, 5, 4]))
    taken = _spread(model, torch.tensor([0, 1, 2, 2, 6]), 1)
    assert taken.unique_consecutive().tolist() == [1, 2, 0, 6]  # of values 1, 2, 3, 5


class Stub(types.ModuleType):
    """Stands in for the package wandb: records what it is told."""

    def __init__(self):
        super().__init__("wandb")
        self.begun, self.rows, self.ended = [], [], []

    def init(self, **options):
        self.begun.append(options)
        return types.SimpleNamespace(
            log=lambda metrics, step: self.rows.append((step, metrics)),
            finish=lambda exit_code: self.ended.append(exit_code),
        )


def test_weights_and_biases(tmp_path, monkeypatch):
    stub = Stub()
    monkeypatch.setitem(sys.modules, "wandb", stub)
    folder = tmp_path / "run"
    run(folder, tiny("factorqvae", "steps=3"), logger="wandb")
    assert [step for step, _ in stub.rows] == [1, 2, 3] and stub.ended == [0]
    assert {"loss", "kl", "images_per_second"} <= stub.rows[0][1].keys()
    (begun,) = stub.begun
    assert begun["name"] == "run" and begun["config"]["model.latent.size"] == 4
    assert begun["dir"] == str(folder) and begun["resume"] == "allow"
    assert begun["id"] == (folder / "wandb-id.txt").read_text().strip()


def test_a_run_goes_on_as_the_same_run_there(tmp_path, monkeypatch):
    from fqvae.training.loggers import WandbRun

    stub = Stub()
    monkeypatch.setitem(sys.modules, "wandb", stub)
    for status in ("failed", "success"):
        logger = WandbRun(tmp_path, {})
        logger.log_metrics({"loss": 1.0}, step=1)
        logger.finalize(status)
    assert stub.begun[0]["id"] == stub.begun[1]["id"] and stub.ended == [1, 0]


def test_wandb_that_is_not_installed(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert main(["train", "smoke", "--logger", "wandb", "--out", str(tmp_path / "run")]) == 1
    error = capsys.readouterr().err
    assert "the logger wandb needs the package wandb" in error and "pip install wandb" in error
    assert error.count("\n") == 1 and not list(tmp_path.iterdir())
