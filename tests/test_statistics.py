"""The samples follow the distributions that they claim to. Seeds are fixed: a test passes always or never."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from fqvae_kernels import gumbel_noise, gumbel_quantize, gumbel_quantize_logits

# Around the edges of Philox blocks (4), lanes and tiles.
EDGES = [2, 3, 4, 5, 8, 15, 16, 17, 31, 33, 63, 64, 65, 67, 127, 128, 129, 130]


def samples(backend: str) -> int:
    """The reference is slow; a smaller sample suffices for what it shares with no kernel."""
    return 100_000 if backend == "cpu" else 10_000


def posterior(z: float, book: torch.Tensor) -> np.ndarray:
    logits = -((z - book.double()) ** 2)
    return torch.softmax(logits, 0).numpy()


def chi_squared(indices: torch.Tensor, q: np.ndarray) -> float:
    """The p-value; codes of fewer than ten expected hits are counted together."""
    counts = np.bincount(indices.numpy(), minlength=len(q)).astype(float)
    expected = q * len(indices)
    rare = expected < 10
    if rare.any():
        counts = np.append(counts[~rare], counts[rare].sum())
        expected = np.append(expected[~rare], expected[rare].sum())
    if len(counts) < 2:
        return 1.0
    return stats.chisquare(counts, expected * counts.sum() / expected.sum()).pvalue


@pytest.mark.parametrize("codes", EDGES)
def test_indices_follow_the_posterior(backend, codes):
    """A gentle slope over the codes: each has its share, the last of a tile as well."""
    book = torch.linspace(-1.0, 1.0, codes)
    z = torch.full((samples(backend),), 0.4)
    indices = gumbel_quantize(z, book, seed=17 + codes, hard=True, temperature=0.3, backend=backend).indices
    assert chi_squared(indices, posterior(z[0].item(), book)) > 1e-3


@pytest.mark.parametrize("codes", [3, 16, 65, 130])
def test_indices_of_logits_follow_their_softmax(backend, codes):
    logits = torch.randn(codes, generator=torch.Generator().manual_seed(codes))
    indices = gumbel_quantize_logits(
        logits.expand(samples(backend), codes), torch.randn(codes), seed=codes, backend=backend
    ).indices
    assert chi_squared(indices, torch.softmax(logits.double(), 0).numpy()) > 1e-3


def test_indices_far_from_uniform(backend):
    """Most of the mass on two codes; the tail is sampled too."""
    book = torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 7.0])
    z = torch.full((samples(backend),), 0.6)
    indices = gumbel_quantize(z, book, seed=5, backend=backend).indices
    assert chi_squared(indices, posterior(0.6, book)) > 1e-3
    assert (indices == 0).any() and (indices == 4).any() and not (indices == 6).any()


def test_consecutive_rows_are_independent(backend):
    """Pairs of neighbouring rows fill the K x K table evenly."""
    codes = 5
    z = torch.zeros(samples(backend))
    indices = gumbel_quantize(z, torch.zeros(codes), seed=9, backend=backend).indices
    for lag in (1, 2, 4, 16):
        pair = indices[:-lag:2] * codes + indices[lag::2][: len(indices[:-lag:2])]
        table = np.bincount(pair.numpy(), minlength=codes**2).reshape(codes, codes)
        assert stats.chi2_contingency(table).pvalue > 1e-3, lag


@pytest.mark.parametrize("codes", [4, 17, 64])
def test_mean_of_hard_quantized(backend, codes):
    """E[m[index]] is the posterior's mean: within four standard errors."""
    book = torch.linspace(-1.5, 1.0, codes)
    z = torch.full((samples(backend),), 0.2)
    quantized = gumbel_quantize(z, book, seed=23, hard=True, backend=backend).quantized.double()
    q, m = posterior(z[0].item(), book), book.double().numpy()
    mean = (q * m).sum()
    error = math.sqrt((q * (m - mean) ** 2).sum() / len(z))
    assert abs(quantized.mean().item() - mean) < 4 * error


@pytest.mark.parametrize("temperature", [0.1, 0.7, 3.0])
def test_mean_of_soft_quantized_of_two_codes(backend, temperature):
    """The difference of two Gumbels is logistic, so the mean is an integral that scipy does."""
    z, book = 0.3, torch.tensor([-0.5, 1.0])
    gap = -((z - 1.0) ** 2) + (z + 0.5) ** 2

    def moment(power):
        def integrand(x):
            w = 1 / (1 + math.exp(-(gap + x) / temperature))
            return (-0.5 + 1.5 * w) ** power * stats.logistic.pdf(x)

        return integrate.quad(integrand, -40, 40, limit=200)[0]

    rows = samples(backend)
    result = gumbel_quantize(torch.full((rows,), z), book, seed=31, temperature=temperature, backend=backend)
    error = math.sqrt((moment(2) - moment(1) ** 2) / rows)
    assert abs(result.quantized.double().mean().item() - moment(1)) < 4 * error


def test_noise_is_gumbel():
    noise = gumbel_noise(3, 500, 130).double().flatten().numpy()
    assert stats.kstest(noise, "gumbel_r").pvalue > 1e-3


@pytest.mark.parametrize("codes", [1, 2, 16, 65])
def test_kl_closed_forms(backend, codes):
    z = torch.linspace(-3, 3, 37)

    def kl(book, z=z):
        return gumbel_quantize(z, book, seed=1, backend=backend).kl

    bound = {"atol": 1e-5, "rtol": 0}
    one = kl(torch.zeros(1))
    torch.testing.assert_close(one, torch.zeros_like(one), **bound)
    equal = kl(torch.full((codes,), 1.5))
    torch.testing.assert_close(equal, torch.zeros_like(equal), **bound)
    apart = torch.arange(codes) * 100.0
    on_code = kl(apart, apart.clone())
    torch.testing.assert_close(on_code, torch.full_like(on_code, math.log(codes)), **bound)
    # Two groups of equal codes, far apart: the posterior is uniform on the near group.
    groups = torch.cat([torch.zeros(codes), torch.full((3 * codes,), 100.0)])
    near = kl(groups, torch.zeros(3))
    torch.testing.assert_close(near, torch.full_like(near, math.log(4)), **bound)


def test_kl_of_two_codes_halfway(backend):
    """Halfway between two codes: no information. Elsewhere: ln 2 less the binary entropy."""
    z = torch.tensor([0.0, 0.1, -0.25, 2.0])
    kl = gumbel_quantize(z, torch.tensor([-1.0, 1.0]), seed=1, backend=backend).kl.double().numpy()
    p = 1 / (1 + np.exp(-4 * z.double().numpy()))
    expected = math.log(2) + p * np.log(p) + (1 - p) * np.log1p(-p)
    np.testing.assert_allclose(kl, expected, atol=1e-6)
    assert abs(kl[0]) < 1e-6


def test_low_temperature_approaches_hard(backend):
    z, book = torch.randn(300, generator=torch.Generator().manual_seed(2)), torch.linspace(-2, 2, 9)
    soft = gumbel_quantize(z, book, seed=4, temperature=0.01, backend=backend)
    hard = gumbel_quantize(z, book, seed=4, temperature=0.01, hard=True, backend=backend)
    assert torch.equal(soft.indices, hard.indices)
    assert (soft.quantized - hard.quantized).abs().median() < 1e-6


def test_high_temperature_approaches_the_mean_code(backend):
    book = torch.tensor([-1.0, 0.0, 4.0])
    quantized = gumbel_quantize(torch.randn(50), book, seed=4, temperature=1e6, backend=backend).quantized
    torch.testing.assert_close(quantized, torch.ones(50), atol=1e-4, rtol=0)
