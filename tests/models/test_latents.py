"""The five latents against their formulas in float64, with the noise that `gumbel_noise` gives."""

import math

import pytest
import torch
import torch.nn.functional as F

from fqvae.models import LatentConfig, Noise
from fqvae.models.latents import build_latent, normal_noise
from fqvae.models.penalties import PENALTIES, Seen
from fqvae_kernels import gumbel_noise

BATCH, M, K, TEMPERATURE = 6, 3, 5, 0.6


def made(kind, **settings):
    """A latent, float64, with random codes, and an encoder's numbers for it that need a gradient."""
    latent = build_latent(LatentConfig(kind, size=M, codebook_size=K, **settings)).double()
    generator = torch.Generator().manual_seed(3)
    latent.initialise(generator)
    head = torch.randn(BATCH, latent.head_width, dtype=torch.float64, generator=generator)
    return latent, head.requires_grad_()


def noise_of(noise):
    """The Gumbel noise of the images of a batch, (batch, M, K), float64."""
    rows = gumbel_noise(noise.seed, BATCH * M, K, row_offset=noise.first * M, dtype=torch.float64)
    return rows.view(BATCH, M, K)


def sampled(logits, noise):
    """weights, codes, kl of the definition: (batch, M, K), (batch, M), (batch, M)."""
    scores = logits + noise_of(noise)
    log_posterior = logits.log_softmax(-1)
    kl = (log_posterior.exp() * (log_posterior + math.log(K))).sum(-1)
    return (scores / TEMPERATURE).softmax(-1), scores.argmax(-1), kl


def gradients(outputs, inputs):
    """Of a fixed random combination of the outputs."""
    generator = torch.Generator().manual_seed(9)
    total = sum((o * torch.randn(o.shape, dtype=o.dtype, generator=generator)).sum() for o in outputs)
    return torch.autograd.grad(total, inputs)


def close(found, expected):
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("codebooks", ["shared", "per_latent"])
def test_scalar(codebooks):
    latent, z = made("scalar", codebooks=codebooks)
    noise = Noise(seed=77, first=4)
    drawn = latent.draw(z, noise, TEMPERATURE, discriminator_input=True)
    weights, codes, kl = sampled(-(z.unsqueeze(-1) - latent.codebook).square(), noise)
    quantized = (weights * latent.codebook).sum(-1)
    assert torch.equal(drawn.codes, codes)
    ours, theirs = (drawn.quantized, drawn.discriminator_input, drawn.kl), (quantized, weights, kl)
    close(ours, theirs)
    inputs = (z, latent.codebook)
    close(gradients(ours, inputs), gradients(theirs, inputs))


@pytest.mark.parametrize("learn", [False, True])
def test_precision_is_a_factor_of_the_squared_distance(learn):
    """Learned, it starts at the given value and its logarithm has a gradient, of each codebook its own."""
    latent, z = made("scalar", codebooks="per_latent", precision=2.5, learn_precision=learn)
    noise = Noise(seed=77)
    drawn = latent.draw(z, noise, TEMPERATURE, discriminator_input=True)
    # The parameter was made in float32.
    start = torch.tensor(2.5).log().item() if learn else math.log(2.5)
    logarithm = torch.full((M,), start, dtype=torch.float64, requires_grad=True)
    distances = logarithm.exp().unsqueeze(-1) * (z.unsqueeze(-1) - latent.codebook).square()
    weights, codes, kl = sampled(-distances, noise)
    assert torch.equal(drawn.codes, codes)
    ours = (drawn.quantized, drawn.discriminator_input, drawn.kl)
    theirs = ((weights * latent.codebook).sum(-1), weights, kl)
    close(ours, theirs)
    own = [latent.quantizer.log_precision] if learn else []
    found = gradients(ours, (z, latent.codebook, *own))
    close(found, gradients(theirs, (z, latent.codebook, *([logarithm] if learn else []))))
    assert len(list(latent.parameters())) == 1 + learn


@pytest.mark.parametrize("codebooks", ["shared", "per_latent"])
@pytest.mark.parametrize("kind", ["scalar", "logits"])
def test_sorted_codes(kind, codebooks):
    """Those of the same draw of N(0, 1) in increasing order, also after steps that would cross them."""
    latent, head = made(kind, codebooks=codebooks, sorted=True)
    other, _ = made(kind, codebooks=codebooks)
    # Codes begin in float32.
    torch.testing.assert_close(latent.codebook, other.codebook.sort(-1).values, rtol=1e-6, atol=1e-6)
    with torch.no_grad():
        other.codebook.copy_(latent.codebook)
    drawn, expected = (each.draw(head, Noise(7, 4), TEMPERATURE, True) for each in (latent, other))
    close(drawn.quantized, expected.quantized)
    assert torch.equal(drawn.codes, expected.codes)
    assert [name for name, _ in latent.named_parameters()] == ["quantizer.codebook_steps"]
    optimizer = torch.optim.SGD(latent.parameters(), lr=0.02)
    for _ in range(3):
        optimizer.zero_grad()
        (latent.codebook * torch.arange(K, 0, -1)).square().sum().backward()
        optimizer.step()
        assert (latent.codebook.diff(dim=-1) > 0).all()
    assert not torch.equal(latent.codebook, other.codebook)


@pytest.mark.parametrize("codebooks", ["shared", "per_latent"])
def test_logits(codebooks):
    latent, head = made("logits", codebooks=codebooks)
    noise = Noise(seed=78)
    drawn = latent.draw(head, noise, TEMPERATURE, discriminator_input=True)
    weights, codes, kl = sampled(head.view(BATCH, M, K), noise)
    assert torch.equal(drawn.codes, codes)
    ours = (drawn.quantized, drawn.discriminator_input, drawn.kl)
    theirs = ((weights * latent.codebook).sum(-1), weights, kl)
    close(ours, theirs)
    inputs = (head, latent.codebook)
    close(gradients(ours, inputs), gradients(theirs, inputs))
    assert torch.equal(latent.codes(head), head.view(BATCH, M, K).argmax(-1))


def test_vector():
    latent, head = made("vector", dimension=4)
    noise = Noise(seed=79)
    drawn = latent.draw(head, noise, TEMPERATURE, discriminator_input=True)
    z = head.view(BATCH, M, 1, 4)
    weights, codes, kl = sampled(-(z - latent.codebook).square().sum(-1), noise)
    assert torch.equal(drawn.codes, codes)
    ours = (drawn.quantized, drawn.discriminator_input, drawn.kl)
    theirs = ((weights @ latent.codebook).flatten(1), weights, kl)
    close(ours, theirs)
    inputs = (head, latent.codebook)
    close(gradients(ours, inputs), gradients(theirs, inputs))
    assert torch.equal(latent.codes(head), (z - latent.codebook).square().sum(-1).argmin(-1))


@pytest.mark.parametrize("hard", [False, True])
def test_autocast_changes_no_vectors(hard):
    latent, head = made("vector", dimension=4, hard=hard)
    plain = latent.draw(head, Noise(5), TEMPERATURE, discriminator_input=True)
    with torch.autocast("cpu", torch.bfloat16):
        cast = latent.draw(head, Noise(5), TEMPERATURE, discriminator_input=True)
        codes = latent.codes(head)
    assert torch.equal(latent.codes(head), codes)
    for name in ("quantized", "codes", "kl", "discriminator_input"):
        assert torch.equal(getattr(cast, name), getattr(plain, name))


@pytest.mark.parametrize("kind", ["scalar", "logits", "vector"])
def test_hard_samples_are_exactly_codes(kind):
    latent, head = made(kind, hard=True)
    drawn = latent.draw(head, Noise(5), TEMPERATURE, discriminator_input=True)
    assert torch.equal(drawn.quantized, latent.values(drawn.codes))
    assert torch.equal(
        drawn.discriminator_input.argmax(-1), drawn.codes
    ) and drawn.discriminator_input.unique().tolist() == [0, 1]
    assert gradients([drawn.quantized], [head])[0].any()


@pytest.mark.parametrize("codebooks", ["shared", "per_latent"])
@pytest.mark.parametrize("kind", ["scalar", "logits", "vector"])
def test_straight_through_is_a_code_with_the_gradient_of_softened_logits(kind, codebooks):
    """Bengio et al. (2013): forward the code that was drawn, backward softmax(logits / temperature)."""
    if kind == "vector" and codebooks == "per_latent":
        return
    latent, head = made(kind, estimator="straight_through", codebooks=codebooks)
    drawn = latent.draw(head, Noise(6), TEMPERATURE, discriminator_input=True)
    book = latent.codebook.squeeze(-1) if kind == "vector" else latent.codebook
    logits = head.view(BATCH, M, K) if kind == "logits" else -(head.unsqueeze(-1) - book).square()
    codes = drawn.codes
    assert len(codes.unique()) > 2
    torch.testing.assert_close(drawn.quantized, latent.values(codes), rtol=1e-12, atol=1e-12)
    soft = (logits / TEMPERATURE).softmax(-1)
    hot = F.one_hot(codes, K).double()
    weights = hot + soft - soft.detach()
    close([drawn.discriminator_input], [weights])
    close(gradients([drawn.quantized], [head]), gradients([(weights * book).sum(-1)], [head]))


def test_reinmax_has_another_gradient_than_straight_through():
    found = []
    for estimator in ("straight_through", "reinmax"):
        latent, head = made("scalar", estimator=estimator)
        drawn = latent.draw(head, Noise(6), TEMPERATURE, discriminator_input=False)
        found.append((drawn.quantized, *gradients([drawn.quantized], [head])))
    assert torch.equal(found[0][0], found[1][0]) and not torch.allclose(found[0][1], found[1][1])


@pytest.mark.parametrize("kind", ["gaussian", "scalar", "logits", "vector"])
def test_evaluation_changes_no_draw(kind):
    latent, head = made(kind)
    drawn = latent.draw(head, Noise(5), TEMPERATURE, discriminator_input=True)
    again = latent.eval().draw(head, Noise(5), TEMPERATURE, discriminator_input=True)
    assert torch.equal(drawn.quantized, again.quantized) and torch.equal(drawn.kl, again.kl)


@pytest.mark.parametrize(
    ("kind", "settings", "shape"),
    [("scalar", {"codebooks": "per_latent"}, (BATCH, M, 1)), ("vector", {"dimension": 4}, (BATCH, M, 4))],
)
def test_nearest_codes_and_their_two_penalties(kind, settings, shape):
    latent, head = made(kind, estimator="nearest", **settings)
    drawn = latent.draw(head, Noise(0), TEMPERATURE, discriminator_input=False)
    seen = Seen(drawn)
    z = head.detach().view(shape)
    books = latent.codebook.detach().reshape(-1, K, shape[-1]).expand(M, -1, -1)  # (M, K, D)
    distances = (z.unsqueeze(2) - books).square().sum(-1)
    assert torch.equal(drawn.codes, distances.argmin(-1))
    chosen = torch.stack([books[j, drawn.codes[:, j]] for j in range(M)], 1)
    close([drawn.quantized], [chosen.flatten(1)])
    close([PENALTIES["commitment"](seen), PENALTIES["codebook"](seen)], [(z - chosen).square().mean()] * 2)

    (straight,) = torch.autograd.grad(drawn.quantized.sum(), head, retain_graph=True)
    assert torch.equal(straight, torch.ones_like(head))
    (pull,) = torch.autograd.grad(PENALTIES["commitment"](seen), head, retain_graph=True)
    close([pull], [(2 * (z - chosen) / z.numel()).view_as(head)])
    to_codes = torch.autograd.grad(PENALTIES["codebook"](seen), [head, latent.codebook], allow_unused=True)
    assert to_codes[0] is None and to_codes[1].any()
    unused = torch.autograd.grad(PENALTIES["commitment"](seen), latent.codebook, allow_unused=True)
    assert unused == (None,)


def test_gaussian():
    latent, head = made("gaussian")
    noise = Noise(seed=80, first=2)
    drawn = latent.draw(head, noise, TEMPERATURE, discriminator_input=True)
    mean, deviation = head[:, :M], head[:, M:].exp().sqrt()
    posterior, prior = torch.distributions.Normal(mean, deviation), torch.distributions.Normal(0.0, 1.0)
    z = mean + deviation * normal_noise(noise, mean)
    kl = torch.distributions.kl_divergence(posterior, prior)
    ours, theirs = (drawn.quantized, drawn.kl), (z, kl)
    close(ours, theirs)
    close(gradients(ours, [head]), gradients(theirs, [head]))
    assert drawn.discriminator_input.shape == (BATCH, M, 1) and drawn.codes is None
    assert torch.equal(latent.codes(head), mean)


def test_plain():
    latent, z = made("plain")
    drawn = latent.draw(z, Noise(0), TEMPERATURE, discriminator_input=True)
    seen = Seen(drawn)
    assert torch.equal(drawn.quantized, z) and torch.equal(latent.codes(z), z)
    close(
        [PENALTIES["nonnegativity"](seen), PENALTIES["activity"](seen)], [(-z).relu().mean(), (z**2).mean()]
    )


def test_normal_noise_is_standard_normal_and_independent():
    scipy_stats = pytest.importorskip("scipy.stats")
    z = normal_noise(Noise(11), torch.empty(20_000, 4, dtype=torch.float64))
    for column in z.T:
        assert scipy_stats.kstest(column.numpy(), "norm").pvalue > 1e-3
    correlation = torch.corrcoef(torch.cat([z, z.square()], 1).T) - torch.eye(8)
    assert correlation.abs().max() < 5 / 20_000**0.5


@pytest.mark.parametrize("kind", ["gaussian", "scalar", "logits", "vector"])
def test_shards_draw_what_the_whole_batch_would_have(kind):
    latent, head = made(kind)
    whole = latent.draw(head, Noise(123, first=10), TEMPERATURE, discriminator_input=False).quantized
    parts = [
        latent.draw(head[i : i + 2], Noise(123, 10 + i), TEMPERATURE, False).quantized for i in (0, 2, 4)
    ]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-12, atol=1e-12)
    other = latent.draw(head, Noise(124, first=10), TEMPERATURE, discriminator_input=False).quantized
    assert not torch.allclose(other, whole)
