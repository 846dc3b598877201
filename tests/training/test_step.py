"""The two losses: against the formulas, and that neither reaches the other's weights."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F

from fqvae.models import Autoencoder, Noise
from fqvae.models.latents import normal_noise
from fqvae.models.networks import build_discriminator, initialise
from fqvae.models.penalties import PENALTIES, Seen
from fqvae.models.penalties.total_correlation import draw_permutations, permute_latents
from fqvae.runs import load_preset
from fqvae.training.counters import derive_seed
from fqvae.training.step import Place, compute_losses
from fqvae_kernels import gumbel_noise

BATCH, M, K = 10, 4, 6
PLACE = Place(seed=3, step=17, temperature=0.8)
SETTINGS = [f"model.latent.size={M}", f"model.latent.codebook_size={K}", "model.network.channels=4"]


def parts(name):
    """Autoencoder and discriminator in float64, and a batch of images."""
    config = load_preset("smoke", name, [*SETTINGS, "model.discriminator.width=8"]).model
    model = Autoencoder(config, 16, seed=1).double()
    discriminator = build_discriminator(config.discriminator, model.latent.discriminator_width).double()
    initialise(discriminator, "fan_in", torch.Generator().manual_seed(2))
    images = torch.rand(BATCH, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return model, discriminator, images - 0.5


@pytest.mark.parametrize("name", ["factorvae", "factordvae", "factorqvae"])
def test_each_loss_leaves_the_others_gradients_alone(name):
    model, discriminator, images = parts(name)
    losses = compute_losses(model, discriminator, images, PLACE)

    losses.autoencoder.backward()
    assert all(parameter.grad is None for parameter in discriminator.parameters())
    assert all(parameter.grad is not None for parameter in model.parameters())
    before = {key: parameter.grad.clone() for key, parameter in model.named_parameters()}

    losses.discriminator.backward()
    assert all(torch.equal(parameter.grad, before[key]) for key, parameter in model.named_parameters())
    assert all(
        parameter.grad is not None and parameter.requires_grad for parameter in discriminator.parameters()
    )


@pytest.mark.parametrize("name", ["factorvae", "factordvae", "factorqvae"])
def test_total_correlation_reaches_the_encoder_through_the_discriminator(name):
    model, discriminator, images = parts(name)
    term = compute_losses(model, discriminator, images, PLACE).terms["total_correlation"]
    gradients = torch.autograd.grad(term, list(model.encoder.parameters()))
    assert all(gradient.any() for gradient in gradients)


@pytest.mark.parametrize("name", ["factorvae", "factorqvae"])
def test_the_second_half_is_not_decoded_and_has_no_gradient(name):
    model, discriminator, images = parts(name)
    decoded = []
    model.decoder.register_forward_hook(lambda module, inputs, output: decoded.append(len(output)))
    images.requires_grad_()
    losses = compute_losses(model, discriminator, images, PLACE)
    (losses.autoencoder + losses.discriminator).backward()
    assert decoded == [BATCH // 2]
    assert images.grad[: BATCH // 2].any() and not images.grad[BATCH // 2 :].any()


def test_losses_of_factorqvae_are_the_formulas():
    model, discriminator, images = parts("factorqvae")
    losses = compute_losses(model, discriminator, images, PLACE)

    noise = gumbel_noise(derive_seed(3, "noise", 17), BATCH * M, K, dtype=torch.float64).view(BATCH, M, K)
    z = model.encoder(images)
    logits = -(z.unsqueeze(-1) - model.latent.codebook).square()
    weights = ((logits + noise) / 0.8).softmax(-1)
    log_posterior = logits.log_softmax(-1)
    kl = (log_posterior.exp() * (log_posterior + math.log(K))).sum(-1)

    half = BATCH // 2
    reconstruction = model.decoder((weights[:half] * model.latent.codebook).sum(-1))
    joint = discriminator(weights[:half])
    error = ((reconstruction - images[:half]) ** 2).mean()
    total_correlation = joint[:, 0].mean() - joint[:, 1].mean()
    expected = error + 1e-3 * kl[:half].mean() + 5e-4 * total_correlation
    torch.testing.assert_close(losses.autoencoder, expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(losses.terms["total_correlation"], total_correlation, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(losses.terms["kl"], kl[:half].mean(), rtol=1e-9, atol=1e-12)

    permutations = draw_permutations(half, M, derive_seed(3, "permutation", 17))
    shuffled = torch.empty(half, M, K, dtype=torch.float64)
    for i in range(half):
        for j in range(M):
            shuffled[i, j] = weights[half + permutations[i, j], j]
    product = discriminator(shuffled)
    zeros, ones = torch.zeros(half, dtype=torch.int64), torch.ones(half, dtype=torch.int64)
    expected = F.cross_entropy(joint, zeros) / 2 + F.cross_entropy(product, ones) / 2
    torch.testing.assert_close(losses.discriminator, expected, rtol=1e-9, atol=1e-12)
    right = (joint.argmax(1) == 0).double().mean() / 2 + (product.argmax(1) == 1).double().mean() / 2
    assert losses.terms["discriminator_accuracy"].item() == pytest.approx(right.item())


def test_without_the_weight_of_the_total_correlation():
    """The autoencoder's loss is that of the other terms; the discriminator's is as ever."""
    model, discriminator, images = parts("factorqvae")
    place = dataclasses.replace(PLACE, total_correlation=False)
    losses, usual = (compute_losses(model, discriminator, images, each) for each in (place, PLACE))
    terms = losses.terms
    torch.testing.assert_close(losses.autoencoder, terms["reconstruction"] + 1e-3 * terms["kl"])
    assert terms["total_correlation"] == usual.terms["total_correlation"] != 0
    weights = list(model.parameters())
    found = torch.autograd.grad(losses.autoencoder, weights, retain_graph=True)
    expected = torch.autograd.grad(terms["reconstruction"] + 1e-3 * terms["kl"], weights)
    torch.testing.assert_close(found, expected)
    assert losses.discriminator == usual.discriminator


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("ae", {}),
        ("bioae", {"nonnegativity": 1, "activity": 1e-2}),
        ("vae", {"kl": 1e-4}),
        ("qlae", {"commitment": 1e-2, "codebook": 1e-2}),
        ("dvae", {"kl": 5e-3}),
        ("qvae", {"kl": 1e-3}),
        (
            "betatcvae",
            {"index_code_information": 1e-4, "batch_total_correlation": 6e-4, "dimension_wise_kl": 1e-4},
        ),
        ("dipvae", {"kl": 1e-4, "covariance": 1.6e-3, "variance": 1.6e-3}),
        ("hfsvae", {"kl": 1e-4, "hausdorff": 3e-4}),
        ("hfsqvae", {"kl": 1e-3, "hausdorff": 3e-4}),
    ],
)
def test_losses_without_a_discriminator_are_weighted_sums_over_the_whole_batch(name, weights):
    model, _, images = parts(name)
    losses = compute_losses(model, None, images, dataclasses.replace(PLACE, set_size=50))
    drawn = model.draw(images, Noise(derive_seed(3, "noise", 17)), temperature=0.8)
    expected = ((model.decoder(drawn.quantized) - images) ** 2).mean()
    assert list(losses.terms) == ["reconstruction", *weights]
    for term, weight in weights.items():
        expected = expected + weight * PENALTIES[term](Seen(drawn, set_size=50))
    torch.testing.assert_close(losses.autoencoder, expected, rtol=1e-9, atol=1e-12)
    assert losses.discriminator is None


def test_loss_of_the_vae_is_the_formula():
    """The KL divergence is summed over latents, the weight 1e-4 goes with that."""
    model, _, images = parts("vae")
    losses = compute_losses(model, None, images, PLACE)
    mean, log_variance = model.encoder(images).chunk(2, 1)
    noise = normal_noise(Noise(derive_seed(3, "noise", 17)), mean)
    error = ((model.decoder(mean + noise * (log_variance / 2).exp()) - images) ** 2).mean()
    kl = (mean**2 + log_variance.exp() - 1 - log_variance).sum() / 2 / BATCH
    torch.testing.assert_close(losses.autoencoder, error + 1e-4 * kl, rtol=1e-9, atol=1e-12)


def test_permutations_move_whole_latents_each_by_its_own():
    features = torch.arange(BATCH * M * K).view(BATCH, M, K)
    permutations = draw_permutations(BATCH, M, seed=1)
    shuffled = permute_latents(features, permutations)
    orders = set()
    for j in range(M):
        rows = shuffled[:, j, 0].sub(j * K).div(M * K, rounding_mode="floor")
        assert sorted(rows.tolist()) == list(range(BATCH))  # every image's latent j is there once
        assert torch.equal(shuffled[:, j], features[rows, j])  # with all its K weights
        orders.add(tuple(rows.tolist()))
    assert len(orders) == M
    assert not torch.equal(permutations, draw_permutations(BATCH, M, seed=2))


def test_permutations_are_uniform():
    """Each image lands in each place equally often: chi-squared over the 4 x 4 places of many draws."""
    draws = torch.stack([draw_permutations(4, 3, seed) for seed in range(2_000)])  # (draws, 4, 3)
    counts = torch.stack([(draws == value).sum((0, 2)) for value in range(4)]).double()  # (value, place)
    expected = 2_000 * 3 / 4
    assert ((counts - expected) ** 2 / expected).sum() < 33  # 9 degrees of freedom: p = 1.3e-4


def test_ranks_together_compute_what_one_process_would(monkeypatch):
    """Two ranks one after the other, the gathering done by hand."""
    model, discriminator, images = parts("factorqvae")
    whole = compute_losses(model, discriminator, images[:8], PLACE)
    noise = Noise(derive_seed(3, "noise", 17), 4)
    gathered = model.draw(images[4:8], noise, temperature=0.8, discriminator_input=True)

    def all_gather(shares, own):
        for rank, share in enumerate(shares):
            share.copy_(gathered.discriminator_input[2 * rank : 2 * rank + 2])

    monkeypatch.setattr(torch.distributed, "all_gather", all_gather)
    found = []
    for rank in range(2):
        share = torch.cat([images[2 * rank : 2 * rank + 2], images[4 + 2 * rank : 6 + 2 * rank]])
        place = Place(3, 17, 0.8, rank=rank, world=2)
        found.append(compute_losses(model, discriminator, share, place))
    for name in ("autoencoder", "discriminator"):
        mean = (getattr(found[0], name) + getattr(found[1], name)) / 2
        torch.testing.assert_close(mean, getattr(whole, name), rtol=1e-9, atol=1e-12)
