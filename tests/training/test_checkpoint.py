"""Checkpoint files: damaged, foreign, dangerous, and a disk that is full."""

import os
import pickle
import resource

import pytest
import torch

import fqvae
from fqvae.models import Autoencoder
from fqvae.models.networks import build_discriminator
from fqvae.runs import CheckpointError, RunConfig, from_flat, load_preset, read_checkpoint, to_flat
from fqvae.runs.checkpoint import FORMAT, write_plain

CONFIG = load_preset("smoke", "qvae", ["model.network.channels=4", "data.size=16", "model.latent.size=3"])


def content(config=CONFIG):
    state = Autoencoder(config.model, config.data.size).state_dict()
    header = {"format": FORMAT, "step": 7, "config": to_flat(config)}
    return {"fqvae": header, "state_dict": {f"autoencoder.{name}": value for name, value in state.items()}}


def test_round_trip(tmp_path):
    write_plain(content(), tmp_path / "last.ckpt")
    checkpoint = read_checkpoint(tmp_path)
    assert (checkpoint.config, checkpoint.step, checkpoint.path) == (CONFIG, 7, tmp_path / "last.ckpt")
    expected = Autoencoder(CONFIG.model, 16).state_dict()
    loaded = fqvae.load(tmp_path).state_dict()
    assert all(torch.equal(loaded[name], expected[name]) for name in expected)


def test_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no checkpoint last\.ckpt in the folder"):
        fqvae.load(tmp_path)
    with pytest.raises(FileNotFoundError, match="no run or checkpoint"):
        fqvae.load(tmp_path / "nothing")


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
def test_truncated(tmp_path, keep):
    path = tmp_path / "last.ckpt"
    write_plain(content(), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: keep if isinstance(keep, int) else int(len(whole) * keep)])
    with pytest.raises(CheckpointError, match="is damaged, or is not a checkpoint"):
        fqvae.load(path)


def test_a_single_bit(tmp_path):
    """PyTorch itself reads such a file without a word."""
    path = tmp_path / "last.ckpt"
    write_plain(content(), path)
    whole = path.read_bytes()
    for place in (len(whole) // 4, len(whole) // 2, len(whole) * 3 // 4):
        flipped = bytearray(whole)
        flipped[place] ^= 16
        path.write_bytes(flipped)
        with pytest.raises(CheckpointError, match=r"last\.ckpt is damaged, or is not a checkpoint"):
            fqvae.load(path)


class Dangerous:
    def __reduce__(self):
        return os.mkdir, ("danger",)


def test_nothing_in_a_file_is_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"fqvae": Dangerous()}, "zipped.ckpt")
    with open("pickled.ckpt", "wb") as file:
        pickle.dump(Dangerous(), file)
    for name in ("zipped.ckpt", "pickled.ckpt"):
        with pytest.raises(CheckpointError, match="is damaged, or is not a checkpoint"):
            fqvae.load(name)
    assert not os.path.exists("danger")


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda c: c.pop("fqvae"), CheckpointError, "is not a checkpoint of fqvae"),
        (lambda c: c.pop("state_dict"), CheckpointError, "is not a checkpoint of fqvae"),
        (
            lambda c: c["fqvae"].update(format=99),
            CheckpointError,
            "has the format 99, but this version reads 2",
        ),
        (
            lambda c: c["fqvae"]["config"].update(stepps=1),
            CheckpointError,
            r"last\.ckpt has a configuration .* unknown key 'stepps'; did you mean 'steps'",
        ),
        (lambda c: c["fqvae"].pop("config"), CheckpointError, "lacks a configuration or a step"),
        (lambda c: c["fqvae"].pop("step"), CheckpointError, "lacks a configuration or a step"),
        (lambda c: c["fqvae"].update(step="7"), CheckpointError, "lacks a configuration or a step"),
        (lambda c: c["fqvae"].update(step=3001), CheckpointError, "is at step 3001 of 3000"),
        (lambda c: c.update(state_dict=[1]), CheckpointError, "is not a checkpoint of fqvae"),
        (lambda c: c["state_dict"].pop("autoencoder.encoder.0.bias"), CheckpointError, "encoder.0.bias"),
        (
            lambda c: c["fqvae"]["config"].update({"model.latent.size": 4}),
            CheckpointError,
            "does not fit its own configuration",
        ),
    ],
)
def test_foreign_files(tmp_path, change, error, words):
    changed = content()
    change(changed)
    write_plain(changed, tmp_path / "last.ckpt")
    with pytest.raises(error, match=words):
        fqvae.load(tmp_path)


def test_not_a_dictionary(tmp_path):
    torch.save([1, 2], tmp_path / "last.ckpt")
    with pytest.raises(CheckpointError, match="is not a checkpoint of fqvae"):
        fqvae.load(tmp_path)


def test_a_full_disk_loses_nothing(tmp_path):
    path = tmp_path / "last.ckpt"
    write_plain({"old": torch.zeros(3)}, path)
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(
            OSError, match=r"could not write .*last.ckpt, what was there is kept: .*File too large"
        ):
            write_plain({"new": torch.zeros(1_000_000)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["last.ckpt"]


def test_the_configuration_survives_a_checkpoint(tmp_path):
    for config in (RunConfig(), load_preset("mpi3d_complex", "qlae", ["data.root=/data"])):
        write_plain({"config": to_flat(config)}, tmp_path / "file")
        assert from_flat(torch.load(tmp_path / "file", weights_only=True)["config"]) == config


@pytest.mark.parametrize("model", ["qvae", "qlae", "dvae", "factorqvae"])
@pytest.mark.parametrize(
    "claim",
    [
        {"model.latent.codebook_size": 10**9},
        {"model.latent.size": 10**9},
        {"model.network.hidden": 10**9},
        {"model.network.channels": 2**62},
        {"model.discriminator.layers": 10**9},
        {"model.discriminator.width": 10**9},
    ],
    ids=lambda claim: next(iter(claim)),
)
def test_a_claim_of_enormous_sizes_takes_no_memory(model, claim, tmp_path):
    """Known before anything of that size is made: 8 GB of address space would not hold it."""
    config = load_preset("smoke", model, ["model.network.channels=4", "data.size=16", "model.latent.size=3"])
    changed = content(config)
    if config.model.has_discriminator:
        discriminator = build_discriminator(config.model.discriminator, 3 * 64).state_dict()
        changed["state_dict"].update({f"discriminator.{name}": each for name, each in discriminator.items()})
    elif "discriminator" in next(iter(claim)):
        pytest.skip("the model has no discriminator")
    changed["fqvae"]["config"].update(claim)
    write_plain(changed, tmp_path / "last.ckpt")
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (int(8e9), limits[1]))
    try:
        with pytest.raises(
            CheckpointError, match=r"last\.ckpt does not fit its own configuration: "
        ) as error:
            fqvae.load(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    assert "\n" not in str(error.value)


def test_a_tensor_that_claims_more_than_the_file_holds(tmp_path):
    """One number, to be read 10**9 times."""
    changed = content()
    changed["state_dict"]["autoencoder.latent.quantizer.codebook"] = torch.zeros(1).expand(64)
    write_plain(changed, tmp_path / "last.ckpt")
    with pytest.raises(CheckpointError, match=r"codebook, \(64,\), are not all there"):
        fqvae.load(tmp_path)
