"""The penalties against their formulas in float64, written out image by image."""

import math

import pytest
import torch

from fqvae.models import ConfigError, LatentConfig, ModelConfig, Noise, WeightsConfig
from fqvae.models.latents import Drawn, build_latent
from fqvae.models.penalties import PENALTIES, Penalty, Seen

BATCH, M = 6, 3


def gaussian():
    """A Gaussian latent's batch, and means, variances and samples as nested lists."""
    latent = build_latent(LatentConfig("gaussian", size=M)).double()
    generator = torch.Generator().manual_seed(1)
    head = torch.randn(BATCH, 2 * M, dtype=torch.float64, generator=generator).requires_grad_()
    drawn = latent.draw(head, Noise(5), 1.0, discriminator_input=False)
    return drawn, head[:, :M].tolist(), head[:, M:].exp().tolist(), drawn.quantized.tolist()


def test_kl_of_a_gaussian_is_summed_over_latents_and_averaged_over_images():
    drawn, means, variances, _ = gaussian()
    total = 0.0
    for mean, variance in zip(means, variances, strict=True):
        for m, v in zip(mean, variance, strict=True):
            total += (m * m + v - 1 - math.log(v)) / 2
    assert PENALTIES["kl"](Seen(drawn)).item() == pytest.approx(total / BATCH, rel=1e-12)


@pytest.mark.parametrize("kind", ["scalar", "logits", "vector"])
def test_kl_of_codes_is_averaged_over_latents_and_images(kind):
    latent = build_latent(LatentConfig(kind, size=M, codebook_size=5)).double()
    latent.initialise(torch.Generator().manual_seed(0))
    head = torch.randn(BATCH, latent.head_width, dtype=torch.float64)
    drawn = latent.draw(head, Noise(5), 1.0, discriminator_input=False)
    total = 0.0
    for i in range(BATCH):
        for j in range(M):
            logits = head.view(BATCH, M, -1)[i, j]
            if kind != "logits":
                logits = -(logits - latent.codebook.flatten()).square()
            posterior = logits.softmax(-1)
            total += sum((p * math.log(p * 5)) for p in posterior.tolist())
    assert PENALTIES["kl"](Seen(drawn)).item() == pytest.approx(total / (BATCH * M), rel=1e-9)


def test_every_penalty_says_what_it_is():
    weights = vars(WeightsConfig())
    assert list(weights) == list(PENALTIES) and not any(weights.values())
    for name, penalty in PENALTIES.items():
        assert penalty.name == name and penalty.label and penalty.meaning
        assert f"{name}: of {penalty.label}" in WeightsConfig.__doc__


def goes_with(**latent):
    return {each for each, penalty in PENALTIES.items() if penalty.goes_with(LatentConfig(**latent))}


@pytest.mark.parametrize("estimator", ["gumbel", "straight_through", "reinmax"])
@pytest.mark.parametrize("kind", ["scalar", "logits", "vector"])
def test_what_goes_with_codes_that_are_drawn(kind, estimator):
    found = goes_with(kind=kind, estimator=estimator)
    assert {"kl", "total_correlation"} <= found
    assert not found & {"commitment", "codebook", "nonnegativity", "activity"}


def test_what_goes_with_the_others():
    assert {"nonnegativity", "activity", "total_correlation"} <= goes_with(kind="plain")
    assert {"commitment", "codebook"} <= goes_with(kind="scalar", estimator="nearest")
    assert "kl" not in goes_with(kind="scalar", estimator="nearest") | goes_with(kind="plain")
    assert {"kl", "total_correlation"} <= goes_with(kind="gaussian")


@pytest.mark.parametrize("name", [name for name, each in PENALTIES.items() if each.needs])
def test_a_need_that_is_not_met_is_named(name):
    drawn = Drawn(torch.zeros(2, 3), torch.zeros(2, 3))
    need = sorted(PENALTIES[name].needs)[0]
    with pytest.raises(ValueError, match=f"{need} must be given for the penalty {name}, but was None"):
        PENALTIES[name](Seen(drawn))


def test_a_discriminator_is_there_for_whatever_penalty_needs_one(monkeypatch):
    other = Penalty("kl", "", "", lambda latent: True, lambda seen: None, frozenset({"discriminator"}))
    assert not ModelConfig(weights=WeightsConfig(kl=1.0)).has_discriminator
    assert ModelConfig(weights=WeightsConfig(total_correlation=1.0)).has_discriminator
    monkeypatch.setitem(PENALTIES, "kl", other)
    assert ModelConfig(weights=WeightsConfig(kl=1.0)).has_discriminator
    assert not ModelConfig().has_discriminator


@pytest.mark.parametrize("name", PENALTIES)
def test_a_weight_that_the_latent_cannot_have_is_refused(name):
    wrong = [kind for kind in ("plain", "logits") if not PENALTIES[name].goes_with(LatentConfig(kind))]
    assert wrong or name == "total_correlation"
    for kind in wrong:
        with pytest.raises(ConfigError, match=f"weights.{name} must be 0 for a '{kind}' latent"):
            ModelConfig(latent=LatentConfig(kind), weights=WeightsConfig(**{name: 1.0}))
