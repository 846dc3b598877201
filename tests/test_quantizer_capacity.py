"""ScalarQuantizer.capacity against closed forms and other computations."""

import itertools
import math

import numpy as np
import pytest
import torch

from fqvae_kernels import ScalarQuantizer


def binary_symmetric(distance, precision):
    """Capacity of two codes, in bits: z at both ends of its range is a binary symmetric channel."""
    reach = 50 / math.sqrt(precision)
    error = 1 / (1 + math.exp(min(700.0, precision * distance * (distance + 2 * reach))))
    return 1 + sum(p * math.log2(p) for p in (error, 1 - error) if p > 0)


@pytest.mark.parametrize("precision", [0.01, 1.0, 9.0])
@pytest.mark.parametrize("distance", [0.0, 1e-3, 0.01, 0.03, 1.0, 1e6])
def test_capacity_of_two_codes(distance, precision):
    q = ScalarQuantizer(2, init=torch.tensor([0.5, 0.5 + distance], dtype=torch.float64), precision=precision)
    q.double().reset_parameters()
    found = q.capacity()
    assert found.shape == () and found.dtype == torch.float64
    assert found.item() == pytest.approx(binary_symmetric(distance, precision), abs=2e-4)


@pytest.mark.parametrize("codes", [1, 3, 64, 200])
def test_capacity_of_codes_far_apart_and_of_equal_ones(codes):
    far = ScalarQuantizer(codes, init="linspace", init_scale=1e6)
    assert far.capacity().item() == pytest.approx(math.log2(codes), abs=2e-4)
    assert ScalarQuantizer(codes, init=torch.full((codes,), 0.3)).capacity().item() == pytest.approx(
        0, abs=2e-4
    )
    assert ScalarQuantizer(codes, init="linspace", precision=1e12).capacity().item() == pytest.approx(
        math.log2(codes), abs=2e-4
    )


def blahut_arimoto(codes, z, precision, steps=4000):
    """Lower and upper bound of the capacity in bits over inputs z: the textbook's iteration, in NumPy."""
    logits = -precision * (z[:, None] - codes) ** 2
    channel = np.exp(logits - logits.max(1, keepdims=True))
    channel /= channel.sum(1, keepdims=True)
    weight = np.full(len(z), 1 / len(z))
    for _ in range(steps):
        ratio = np.where(channel > 0, channel / np.maximum(weight @ channel, 1e-300), 1.0)
        divergence = (channel * np.log2(ratio)).sum(1)
        weight = weight * 2.0**divergence
        total = weight.sum()
        weight /= total
    return math.log2(total), divergence.max()


@pytest.mark.parametrize("precision", [0.2, 1.0, 5.0])
def test_capacity_equals_another_computation(precision):
    codes = np.random.default_rng(4).standard_normal(12)
    reach = 50 / math.sqrt(precision)
    z = np.linspace(codes.min() - reach, codes.max() + reach, 3001)
    low, high = blahut_arimoto(codes, z, precision)
    assert high - low < 3e-3
    found = ScalarQuantizer(12, init=torch.tensor(codes), precision=precision).capacity().item()
    assert low - 1e-3 < found < high + 1e-3


def test_capacity_is_a_maximum_by_scipy():
    """No distribution that scipy finds carries more, and the best of them as much."""
    optimize = pytest.importorskip("scipy.optimize")
    codes = np.array([-1.0, -0.2, 0.4, 1.3])
    z = np.concatenate(
        [codes[0] - np.array([0, 1, 5, 50]), np.linspace(-1, 1.3, 9), codes[-1] + np.array([1, 5, 50])]
    )
    logits = -((z[:, None] - codes) ** 2)
    channel = np.exp(logits - logits.max(1, keepdims=True))
    channel /= channel.sum(1, keepdims=True)

    def information(free):
        weight = np.exp(free - free.max())
        weight /= weight.sum()
        ratio = np.where(channel > 0, channel / (weight @ channel), 1.0)
        return -(weight @ (channel * np.log2(ratio)).sum(1))

    best = -optimize.minimize(information, np.zeros(len(z)), method="L-BFGS-B", options={"maxiter": 2000}).fun
    found = ScalarQuantizer(4, init=torch.tensor(codes)).capacity().item()
    # scipy's inputs are a few of those that the grid has, among them the best ones.
    assert best - 1e-4 < found < best + 0.02


def test_capacity_of_normal_codes():
    """The figures of the docstring, over draws, whatever the temperature."""
    for codes, expected in ((32, 1.78), (64, 1.87), (128, 1.95)):
        found = []
        for seed in range(8):
            torch.manual_seed(seed)
            found.append(ScalarQuantizer(codes, temperature=0.1 + seed).capacity().item())
        assert np.mean(found) == pytest.approx(expected, abs=0.04), codes


def test_capacity_grows_with_precision():
    torch.manual_seed(0)
    codes = torch.randn(20)
    bits = [
        ScalarQuantizer(20, init=codes, precision=precision).capacity().item()
        for precision in (1e-4, 1e-2, 0.1, 1.0, 3.0, 30.0, 1e3, 1e7)
    ]
    assert all(low < high for low, high in itertools.pairwise(bits))
    assert bits[-1] == pytest.approx(math.log2(20), abs=1e-3)


def test_capacity_of_several_codebooks():
    init = torch.tensor([[0.0, 0.0], [0.0, 1e6], [0.0, math.nan]])
    q = ScalarQuantizer(2, num_codebooks=3, precision=[1.0, 2.0, 3.0], learn_precision=True)
    with torch.no_grad():
        q.codebook.copy_(init)
    torch.testing.assert_close(
        q.capacity(),
        torch.tensor([0.0, 1.0, math.nan], dtype=torch.float64),
        atol=2e-4,
        rtol=0,
        equal_nan=True,
    )
    ordered = ScalarQuantizer(2, sorted=True, init=torch.tensor([5e5, 0.0]))
    assert ordered.capacity().item() == pytest.approx(1.0, abs=2e-4)
