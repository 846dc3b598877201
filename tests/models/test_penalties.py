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
        assert f"{name}: {penalty.label}; " in WeightsConfig.__doc__


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


def density(z, mean, variance):
    return math.exp(-((z - mean) ** 2) / (2 * variance)) / math.sqrt(2 * math.pi * variance)


def test_the_three_parts_of_the_beta_tcvae():
    """The minibatch-weighted estimator of Chen et al. (2018) with N = 40, densities multiplied one by one."""
    drawn, means, variances, samples = gaussian()
    size, information, correlation, divergence = 40, 0.0, 0.0, 0.0
    for z, own_mean, own_variance in zip(samples, means, variances, strict=True):
        own = math.prod(density(z[j], own_mean[j], own_variance[j]) for j in range(M))
        joint, marginals = 0.0, [0.0] * M
        for mean, variance in zip(means, variances, strict=True):
            each = [density(z[j], mean[j], variance[j]) for j in range(M)]
            joint += math.prod(each) / (size * BATCH)
            marginals = [m + e / (size * BATCH) for m, e in zip(marginals, each, strict=True)]
        prior = math.prod(density(each, 0.0, 1.0) for each in z)
        information += math.log(own / joint) / BATCH
        correlation += math.log(joint / math.prod(marginals)) / BATCH
        divergence += math.log(math.prod(marginals) / prior) / BATCH
    seen = Seen(drawn, set_size=size)
    assert PENALTIES["index_code_information"](seen).item() == pytest.approx(information, rel=1e-10)
    assert PENALTIES["batch_total_correlation"](seen).item() == pytest.approx(correlation, rel=1e-10)
    assert PENALTIES["dimension_wise_kl"](seen).item() == pytest.approx(divergence, rel=1e-10)


def test_posteriors_that_are_all_alike_tell_nothing_and_depend_on_nothing():
    """With N = 1, whose logarithm the estimator would add M - 1 times."""
    mean, variance = torch.full((50, 2), 0.5, dtype=torch.float64), 0.8
    z = mean + variance**0.5 * torch.randn(mean.shape, dtype=torch.float64)
    seen = Seen(Drawn(z, mean, log_variance=torch.full_like(mean, math.log(variance))), set_size=1)
    assert PENALTIES["index_code_information"](seen).item() == pytest.approx(0, abs=1e-12)
    assert PENALTIES["batch_total_correlation"](seen).item() == pytest.approx(0, abs=1e-12)


def test_covariances_of_the_dip_vae():
    drawn, means, variances, _ = gaussian()
    centre = [sum(mean[j] for mean in means) / BATCH for j in range(M)]
    off, on = 0.0, 0.0
    for i in range(M):
        for j in range(M):
            found = sum((mean[i] - centre[i]) * (mean[j] - centre[j]) for mean in means) / BATCH
            if i == j:
                on += (found + sum(variance[i] for variance in variances) / BATCH - 1) ** 2
            else:
                off += found**2
    assert PENALTIES["covariance"](Seen(drawn)).item() == pytest.approx(off, rel=1e-12)
    assert PENALTIES["variance"](Seen(drawn)).item() == pytest.approx(on, rel=1e-12)


def hausdorff(z, corners):
    """The definition in loops. corners: {(i, j): [(a, b), ...]}, the pairs of images."""
    total = 0.0
    for (i, j), pairs in corners.items():
        farthest = 0.0
        for a, b in pairs:
            nearest = min((z[a][i] - row[i]) ** 2 + (z[b][j] - row[j]) ** 2 for row in z)
            farthest = max(farthest, nearest)
        total += farthest
    return total


def every_pair(batch, latents):
    pairs = [(a, b) for a in range(batch) for b in range(batch)]
    return {(i, j): pairs for i in range(latents) for j in range(i + 1, latents)}


@pytest.mark.parametrize(("kind", "settings"), [("plain", {}), ("gaussian", {}), ("scalar", {})])
def test_distance_from_a_factorized_support(kind, settings):
    latent = build_latent(LatentConfig(kind, size=M, codebook_size=5, **settings)).double()
    generator = torch.Generator().manual_seed(2)
    head = torch.randn(BATCH, latent.head_width, dtype=torch.float64, generator=generator).requires_grad_()
    found = PENALTIES["hausdorff"](Seen(latent.draw(head, Noise(5), 1.0, discriminator_input=False)))
    assert found.item() == pytest.approx(hausdorff(head[:, :M].tolist(), every_pair(BATCH, M)), rel=1e-12)
    (gradient,) = torch.autograd.grad(found, head)

    def shifted(row, column, step):
        moved = head.detach()[:, :M].clone()
        moved[row, column] += step
        return hausdorff(moved.tolist(), every_pair(BATCH, M))

    for row in range(BATCH):
        for column in range(M):
            slope = (shifted(row, column, 1e-6) - shifted(row, column, -1e-6)) / 2e-6
            assert gradient[row, column].item() == pytest.approx(slope, abs=1e-6)


def test_correlation_costs_nothing_where_all_combinations_occur():
    """A grid of 3 x 3 values, its diagonal ten times: correlated, but of factorized support."""
    grid = [(a, b) for a in range(3) for b in range(3)]
    z = torch.tensor(grid + [(0, 0), (1, 1), (2, 2)] * 2, dtype=torch.float64)
    assert PENALTIES["hausdorff"](Seen(Drawn(z, z))).item() == 0
    missing = torch.tensor([each for each in grid if each != (0, 2)], dtype=torch.float64)
    assert PENALTIES["hausdorff"](Seen(Drawn(missing, missing))).item() == 1  # (0, 1) and (1, 2) are nearest
    assert PENALTIES["hausdorff"](Seen(Drawn(z[:, :1], z[:, :1]))).item() == 0


def test_many_images_draw_their_corners_by_the_seed():
    z = torch.randn(40, M, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    whole = hausdorff(z.tolist(), every_pair(40, M))
    found = [PENALTIES["hausdorff"](Seen(Drawn(z, z), seed=seed)).item() for seed in (0, 0, 1, 2, 3)]
    assert found[0] == found[1] and len(set(found)) > 2
    assert all(whole / 4 < each <= whole + 1e-12 for each in found)


@pytest.mark.parametrize("name", PENALTIES)
def test_its_curve_has_a_panel(name):
    curves = pytest.importorskip("fqvae.figures.curves")
    figure = curves.training_curves({"step": [1, 2], name: [0.5, 0.25]})
    title = figure.axes[0].get_title(loc="left") or figure.axes[0].get_title()
    assert title.replace("\n", " ") == PENALTIES[name].title
