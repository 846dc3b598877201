"""The authors' protocol point by point, and the learning rate of the codebook."""

import copy

import pytest
import torch
import torch.nn.functional as F
import yaml
from blobruns import TINY, run, tiny
from blobset import BlobSet

from fqvae.data import split
from fqvae.models import Autoencoder, ConfigError, to_float
from fqvae.models.networks import build_discriminator, initialise
from fqvae.models.penalties.total_correlation import draw_permutations
from fqvae.runs import load_preset, model_names, read_checkpoint
from fqvae.training.counters import derive_seed
from fqvae_kernels import gumbel_quantize

pytest.importorskip("lightning")

PAPER = ("shapes3d", "isaac3d", "mpi3d_complex")
FACTOR = ("factorvae", "factordvae", "factorqvae")


def columns(folder):
    header, *lines = (folder / "metrics.csv").read_text(encoding="utf-8").splitlines()
    values = [[float(each) for each in line.split(",")] for line in lines]
    return dict(zip(header.split(","), zip(*values, strict=True), strict=True))


@pytest.mark.parametrize("preset", PAPER)
@pytest.mark.parametrize("model", model_names())
def test_models_of_one_optimizer_take_twice_the_batches_of_the_cosine(preset, model):
    ours, authors = load_preset(preset, model), load_preset(preset, model, ["protocol=authors"])
    assert (ours.protocol, ours.steps, ours.cosine_steps) == ("ours", 50_000, 50_000)
    assert (authors.steps, authors.cosine_steps) == (50_000 if model in FACTOR else 100_000, 50_000)
    assert authors.batch_size == ours.batch_size and authors.temperature_steps == ours.temperature_steps


def test_what_is_asked_for_wins():
    config = load_preset("shapes3d", "vae", ["protocol=authors", "steps=300"])
    assert (config.steps, config.cosine_steps) == (300, 150)
    # Without its discriminator a model has one optimizer.
    config = load_preset("smoke", "factorqvae", ["model.weights.total_correlation=0", "protocol=authors"])
    assert (config.steps, config.cosine_steps) == (6_000, 3_000)
    with pytest.raises(ConfigError, match="protocol cannot be 'author'; did you mean 'authors'"):
        load_preset("smoke", "qvae", ["protocol=author"])


def test_the_learning_rate_comes_back(tmp_path):
    run(tmp_path / "run", tiny("ae", "protocol=authors"))
    rates = columns(tmp_path / "run")["learning_rate"]
    assert rates[0] == 2e-3 and rates[6] == pytest.approx(1.25e-6) == min(rates)
    assert rates[7:] == pytest.approx(rates[5:0:-1])


def test_qlae_starts_from_normal_codes():
    assert load_preset("shapes3d", "qlae").model.latent.init == "linspace"
    assert load_preset("shapes3d", "qlae", ["protocol=authors"]).model.latent.init == "normal"
    explicit = load_preset("shapes3d", "qlae", ["protocol=authors", "model.latent.init=linspace"])
    assert explicit.model.latent.init == "linspace"


def discriminator_losses(config):
    """Of the first step: with the second half encoded before and after the autoencoder's update."""
    data, latents, codes = BlobSet(), config.model.latent.size, config.model.latent.codebook_size
    model = Autoencoder(config.model, 16, seed=derive_seed(0, "autoencoder"))
    discriminator = build_discriminator(config.model.discriminator, latents * codes)
    generator = torch.Generator().manual_seed(derive_seed(0, "discriminator"))
    initialise(discriminator, config.model.network.init, generator)
    train = split(data).train
    order = torch.randperm(
        len(train), generator=torch.Generator().manual_seed(derive_seed(0, "order"))
    ).numpy()
    first, second = to_float(data.images(train[order[: config.batch_size]])).chunk(2)
    half = len(first)

    def weights(images, row):
        found = gumbel_quantize(
            model.encoder(images),
            model.latent.codebook,
            temperature=1.0,
            seed=derive_seed(0, "noise"),
            row_offset=row,
            return_weights=True,
        )
        return found.quantized, found.kl, found.weights

    quantized, kl, joint = weights(first, 0)
    loss = F.mse_loss(model.decoder(quantized), first) + config.model.weights.kl * kl.mean()
    logits = discriminator(joint)
    loss = loss + config.model.weights.total_correlation * (logits[:, 0] - logits[:, 1]).mean()
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    permutations = draw_permutations(half, latents, derive_seed(0, "permutation"))
    found = []
    for _ in range(2):
        with torch.no_grad():
            others = weights(second, half * latents)[2][permutations, torch.arange(latents)]
            labels = torch.tensor([0] * half + [1] * half)
            both = torch.cat([discriminator(joint), discriminator(others)])
            found.append(F.cross_entropy(both, labels).item())
            for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                # Adam's first step
                parameter -= config.optimizer.learning_rate * gradient / (gradient.abs() + 1e-8)
    return found


@pytest.mark.parametrize(("protocol", "number"), [("ours", 0), ("authors", 1)])
def test_the_second_half_is_encoded_before_or_after_the_update(tmp_path, protocol, number):
    config = tiny("factorqvae", "steps=1", "optimizer.learning_rate=3e-2", f"protocol={protocol}")
    expected = discriminator_losses(config)
    assert abs(expected[0] - expected[1]) > 1e-5
    run(tmp_path / "run", config)
    assert columns(tmp_path / "run")["discriminator"][0] == pytest.approx(expected[number], abs=1e-6)


def test_a_run_of_the_authors_protocol_goes_on_where_it_was(tmp_path):
    config = tiny("factorqvae", "protocol=authors")
    run(tmp_path / "whole", config)

    class Stopped(BlobSet):
        calls = 0

        def images(self, index):
            self.calls += 1
            if self.calls == 7:
                raise RuntimeError("stopped")
            return super().images(index)

    from fqvae.training.run import train

    with pytest.raises(RuntimeError, match="stopped"):
        train(config, tmp_path / "part", device="cpu", dataset=Stopped())
    assert read_checkpoint(tmp_path / "part").step == 4
    run(tmp_path / "part", config, resume=True)
    ends = [read_checkpoint(tmp_path / name).state for name in ("whole", "part")]
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])
    assert columns(tmp_path / "whole")["perplexity/pooled"] == columns(tmp_path / "part")["perplexity/pooled"]


def test_the_option_is_a_key_of_the_run(tmp_path, monkeypatch, capsys):
    from fqvae.cli import main

    seen = []

    def stop(config, folder, **options):
        seen.append(config)
        raise SystemExit(0)

    monkeypatch.setattr("fqvae.training.run.train", stop)
    for options in (["--protocol", "authors"], []):
        with pytest.raises(SystemExit):
            main(["train", "smoke", "--model", "qvae", *TINY[:3], *options])
    assert [(each.protocol, each.steps) for each in seen] == [("authors", 6_000), ("ours", 3_000)]


@pytest.mark.parametrize("codebook_rate", ["none", "1e-4", "0"])
def test_learning_rate_of_the_codebook(tmp_path, codebook_rate):
    """Adam's first step moves each weight by its learning rate."""
    config = tiny("qvae", "steps=1", f"optimizer.codebook_learning_rate={codebook_rate}")
    rate = config.optimizer.learning_rate if codebook_rate == "none" else float(codebook_rate)
    before = copy.deepcopy(Autoencoder(config.model, 16, seed=derive_seed(0, "autoencoder")).state_dict())
    run(tmp_path / "run", config)
    state = read_checkpoint(tmp_path / "run").state
    moved = (state["autoencoder.latent.quantizer.codebook"] - before["latent.quantizer.codebook"]).abs()
    assert moved.max().item() == pytest.approx(rate, rel=1e-3, abs=1e-9)
    other = (state["autoencoder.decoder.0.bias"] - before["decoder.0.bias"]).abs().max().item()
    assert other == pytest.approx(config.optimizer.learning_rate, rel=1e-3)
    written = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text(encoding="utf-8"))
    assert written["optimizer.codebook_learning_rate"] == (None if codebook_rate == "none" else rate)


def test_a_learning_rate_below_0_is_refused():
    with pytest.raises(ConfigError, match=r"optimizer\.codebook_learning_rate must be finite and at least 0"):
        load_preset("smoke", "qvae", ["optimizer.codebook_learning_rate=-1"])
