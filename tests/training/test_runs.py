"""Whole runs: what they leave; that they learn, repeat themselves, go on after a kill, stop if they must."""

import csv
import os
import random
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from blobruns import run, tiny
from blobset import BlobSet
from PIL import Image

import fqvae
from fqvae.runs import CheckpointError, load_preset, model_names, read_checkpoint

pytest.importorskip("lightning")

SCRIPT = Path(__file__).with_name("blobruns.py")


def rows(folder):
    """The metrics, by column, speeds left out."""
    with open(folder / "metrics.csv", encoding="utf-8") as file:
        found = list(csv.DictReader(file))
    return [
        {name: float(value) for name, value in row.items() if name != "images_per_second"} for row in found
    ]


def equal(first, second):
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(equal(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(equal, first, second))
    return first == second


def assert_same_end(folder, unbroken):
    """Weights, both optimizers' states and the metrics, bit for bit."""
    ours, theirs = (torch.load(each / "last.ckpt", weights_only=True) for each in (folder, unbroken))
    for key in ("state_dict", "optimizer_states", "fqvae"):
        assert equal(ours[key], theirs[key]), key
    assert rows(folder) == rows(unbroken)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """A run of FactorQVAE from its first step to its last."""
    folder = tmp_path_factory.mktemp("unbroken") / "run"
    assert run(folder, tiny()).finished
    return folder


def script(*arguments, torchrun=0):
    launch = (
        ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={torchrun}"] if torchrun else []
    )
    command = [sys.executable, *launch, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)


def test_what_a_run_leaves(unbroken):
    assert (unbroken / "config.yaml").read_text(encoding="utf-8").startswith("data.name: blobs\n")
    with Image.open(unbroken / "reconstructions.png") as picture:
        assert picture.size == (8 * 18 * 6, 2 * 2 * 18 * 6)
    assert any(each.name.startswith("events.out.tfevents") for each in unbroken.iterdir())
    assert not list(unbroken.glob("*.tmp"))
    checkpoint = read_checkpoint(unbroken)
    assert checkpoint.step == 12 and checkpoint.config == tiny()


def test_what_is_logged(unbroken):
    found = rows(unbroken)
    assert [row["step"] for row in found] == list(range(1, 13))
    names = {"loss", "reconstruction", "kl", "total_correlation", "discriminator", "discriminator_accuracy"}
    names |= {"temperature", "learning_rate", "perplexity/pooled", "codes_used/pooled"}
    names |= {f"perplexity/{latent:02d}" for latent in range(4)} | {f"codes_used/{i:02d}" for i in range(4)}
    names |= {f"gradient_norm/{part}" for part in ("encoder", "decoder", "codebook", "discriminator")}
    for row in found:
        assert names <= row.keys()
        parts = row["reconstruction"] + 1e-3 * row["kl"] + 5e-4 * row["total_correlation"]
        assert row["loss"] == pytest.approx(parts, rel=1e-5)
        assert 1 <= row["perplexity/00"] <= row["codes_used/00"] <= 8
    assert found[0]["temperature"] == 1 and found[6]["temperature"] == pytest.approx(0.6065306597)
    assert found[0]["learning_rate"] == 2e-3 and found[6]["learning_rate"] == pytest.approx(1.000625e-3)


def test_usage_in_figures():
    from fqvae.training.module import usage_metrics

    figures = usage_metrics(torch.tensor([[4, 4, 0], [8, 0, 0]]))
    assert figures["perplexity/00"] == pytest.approx(2) and figures["perplexity/01"] == pytest.approx(1)
    assert figures["perplexity/pooled"] == pytest.approx(0.75**-0.75 * 0.25**-0.25)
    assert [figures[f"codes_used/{name}"] for name in ("00", "01", "pooled")] == [2, 1, 2]


def test_perplexity_is_that_of_the_measures():
    """One formula on tensors, one on arrays."""
    from fqvae.metrics import code_usage
    from fqvae_kernels.quantizer import code_perplexity

    indices = torch.randint(7, (200, 4), generator=torch.Generator().manual_seed(0)) % torch.tensor(
        [7, 5, 2, 1]
    )
    expected = code_usage(indices.numpy(), 7)
    found = code_perplexity(torch.from_numpy(expected.counts))
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, torch.from_numpy(expected.perplexity), rtol=1e-12, atol=0)
    assert code_perplexity(torch.zeros(2, 3, dtype=torch.int64)).tolist() == [0, 0]


def test_the_same_seed_repeats_the_run_and_another_does_not(unbroken, tmp_path):
    run(tmp_path / "again", tiny())
    assert_same_end(tmp_path / "again", unbroken)
    run(tmp_path / "other", tiny("factorqvae", "seed=1"))
    assert rows(tmp_path / "other")[0]["reconstruction"] != rows(unbroken)[0]["reconstruction"]


@pytest.mark.parametrize("protocol", ["ours", "authors"])
def test_the_total_correlation_may_come_later(protocol, tmp_path):
    """loss = the terms by their weights, its own from step 6 on (the first row is of step 0)."""
    settings = (f"protocol={protocol}", "beta=0.5", "gamma=0.25", "steps=9", "total_correlation_from=6")
    found = rows(run(tmp_path / "run", tiny("factorqvae", *settings)).folder)
    for step, row in enumerate(found):
        gamma = 0.25 * (step >= 6)
        expected = row["reconstruction"] + 0.5 * row["kl"] + gamma * row["total_correlation"]
        assert row["loss"] == pytest.approx(expected, rel=1e-5) and row["total_correlation"] != 0
    assert len(found) == 9


def test_sorted_codes_are_trained_saved_and_loaded(tmp_path):
    """A run that was killed ends where the unbroken one does, with its codes in increasing order."""
    setting = "model.latent.sorted=true"
    whole = run(tmp_path / "whole", tiny("factorqvae", setting)).folder
    killed = script(tmp_path / "killed", "factorqvae", 8, setting)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    resumed = run(tmp_path / "killed", tiny("factorqvae", setting), resume=True).folder
    assert_same_end(resumed, whole)
    codes = fqvae.load(resumed).latent.codebook
    assert (codes.diff() > 0).all() and len(codes) == 8


@pytest.mark.parametrize("name", model_names())
def test_every_model_learns(name, tmp_path):
    config = tiny(
        name,
        "steps=150",
        "model.network.channels=8",
        "optimizer.learning_rate=1e-2",
        "log_every=10",
        "checkpoint_every=150",
    )
    outcome = run(tmp_path / "run", config)
    found = rows(tmp_path / "run")
    assert all(value == value and abs(value) < 1e6 for row in found for value in row.values())
    errors = [row["reconstruction"] for row in found]
    assert sum(errors[-3:]) / 3 < 0.6 * errors[0]
    assert outcome.losses["held_out"] < 0.75 * errors[0]


def test_killed_and_resumed_ends_where_the_unbroken_run_does(unbroken, tmp_path):
    folder = tmp_path / "run"
    killed = script(folder, "factorqvae", 8)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert read_checkpoint(folder).step == 4
    assert run(folder, tiny(), resume=True).step == 12
    assert_same_end(folder, unbroken)


@pytest.mark.slow
def test_killed_five_times_at_random(unbroken, tmp_path):
    generator = random.Random(0)
    for number in range(5):
        folder = tmp_path / str(number)
        assert script(folder, "factorqvae", generator.randint(7, 14)).returncode == -signal.SIGKILL
        run(folder, tiny(), resume=True)
        assert_same_end(folder, unbroken)


@pytest.mark.slow
@pytest.mark.parametrize("settings", [(), ("protocol=authors",)])
def test_two_processes_follow_one(settings, tmp_path):
    folder = tmp_path / "run"
    result = script(folder, "factorqvae", 0, *settings, torchrun=2)
    assert result.returncode == 0, result.stderr
    assert "Warning" not in result.stderr
    run(tmp_path / "one", tiny("factorqvae", *settings))
    for ours, theirs in zip(rows(folder), rows(tmp_path / "one"), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-6)


@pytest.mark.slow
def test_two_processes_follow_one_over_100_steps(tmp_path):
    settings = ("steps=100", "optimizer.learning_rate=5e-3")
    assert script(tmp_path / "two", "factorqvae", 0, *settings, torchrun=2).returncode == 0
    run(tmp_path / "one", tiny("factorqvae", *settings))
    for ours, theirs in zip(rows(tmp_path / "two"), rows(tmp_path / "one"), strict=True):
        for name in ("loss", "reconstruction", "kl", "discriminator"):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-4), (ours["step"], name)


class Interrupted(BlobSet):
    """Sends the process what Ctrl-C does when it is asked for its 7th batch."""

    calls = 0

    def images(self, index):
        self.calls += 1
        if self.calls == 7:
            os.kill(os.getpid(), signal.SIGINT)
        return super().images(index)


def test_ctrl_c_leaves_a_checkpoint_to_go_on_from(tmp_path):
    from fqvae.training.run import train

    # The codes drawn are counted from the first log to the last, across the interruption.
    config = tiny("factorqvae", "log_every=12")
    run(tmp_path / "unbroken", config)
    handler = signal.getsignal(signal.SIGINT)
    outcome = train(config, tmp_path / "run", device="cpu", dataset=Interrupted())
    assert not outcome.finished and 5 <= outcome.step <= 7
    assert signal.getsignal(signal.SIGINT) is handler
    assert read_checkpoint(tmp_path / "run").step == outcome.step
    run(tmp_path / "run", config, resume=True)
    assert_same_end(tmp_path / "run", tmp_path / "unbroken")


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint_before(tmp_path):
    from fqvae.training.module import NonFiniteError

    config = tiny("factorqvae", "optimizer.learning_rate=1e30", "checkpoint_every=1")
    with pytest.raises(NonFiniteError, match=r"step 1: reconstruction = (inf|nan)"):
        run(tmp_path / "run", config)
    assert read_checkpoint(tmp_path / "run").step == 0
    assert all(parameter.isfinite().all() for parameter in fqvae.load(tmp_path / "run").parameters())


def test_weights_that_are_not_finite_are_not_written(tmp_path):
    from fqvae.training.callbacks import SafeCheckpointIO
    from fqvae.training.module import NonFiniteError

    content = {"state_dict": {"w": torch.tensor([1.0, float("nan")])}, "fqvae": {"step": 5}}
    with pytest.raises(NonFiniteError, match="step 5: w is not finite"):
        SafeCheckpointIO().save_checkpoint(content, tmp_path / "last.ckpt")
    assert not list(tmp_path.iterdir())


def test_resuming_needs_the_same_configuration(unbroken):
    before = (unbroken / "last.ckpt").read_bytes()
    words = (
        r"another configuration: model.weights.kl is 0.001 there and 0.5 here, steps is 12 there and 24 here"
    )
    with pytest.raises(CheckpointError, match=words):
        run(unbroken, tiny("factorqvae", "steps=24", "model.weights.kl=0.5"), resume=True)
    assert (unbroken / "last.ckpt").read_bytes() == before


def test_a_finished_run_is_left_as_it_is(unbroken):
    before = (unbroken / "last.ckpt").read_bytes()
    outcome = run(unbroken, tiny(), resume=True)
    assert outcome.finished and outcome.step == 12 and outcome.losses["held_out"] > 0
    assert (unbroken / "last.ckpt").read_bytes() == before


def test_a_folder_in_use_is_not_touched(unbroken, tmp_path):
    before = sorted((each.name, each.stat().st_mtime_ns) for each in unbroken.iterdir())
    with pytest.raises(FileExistsError, match="is in use; resume the run that is there, or name another"):
        run(unbroken, tiny())
    assert sorted((each.name, each.stat().st_mtime_ns) for each in unbroken.iterdir()) == before
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=re.escape(str(tmp_path / "file"))):
        run(tmp_path / "file" / "run", tiny())
    with pytest.raises(FileNotFoundError, match="no run or checkpoint"):
        run(tmp_path / "nothing", tiny(), resume=True)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("batch_size=1000", "batch_size must be at most 206, .* but was 1000"),
        ("data.size=24", r"images of blobs must be \(3, 24, 24\), .* but are \(3, 16, 16\)"),
    ],
)
def test_what_does_not_fit_leaves_nothing_behind(override, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        run(tmp_path / "run", tiny("factorqvae", override))
    assert not list(tmp_path.iterdir())


def test_the_trained_model_loads_in_one_line(unbroken):
    model = fqvae.load(unbroken)
    assert not model.training and isinstance(model, fqvae.models.Autoencoder)
    images = BlobSet().images(range(6))
    codes = model.encode(images)
    same = fqvae.load(str(unbroken / "last.ckpt"))
    assert torch.equal(same.encode(images), codes) and torch.equal(same.decode(codes), model.decode(codes))
    assert model.decode(model.sample(2)).shape == (2, 3, 16, 16)
    fresh = fqvae.models.Autoencoder(load_preset("smoke").model, 32)
    assert (model.latent.codebook.shape, fresh.latent.codebook.shape) == ((8,), (64,))
