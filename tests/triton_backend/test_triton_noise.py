"""The compiled noise for every possible value of u: |error of g| <= 2e-6 max(1, |g|), whatever the hardware's
approximate logarithm does within its bounds.

The first logarithm is what decides (_triton/noise.py says how it was chosen); the test with it replaced shows
that these tests can tell.
"""

import shutil

import numpy as np
import pytest
import torch
import truth

BOUND = 2e-6
NEAR_ONE = 2**23 - 2**18  # from here on u is within 1/32 of 1


@pytest.fixture
def worst_error(compile_only):
    """worst_error(numbers of u, jitter seed, edits): the largest |error| / max(1, |g|), and of which u."""
    if shutil.which("g++") is None:
        pytest.skip("running PTX needs g++")
    from compiled import PtxLauncher

    from fqvae_kernels.backends._triton import noise as kernels

    def measure(numbers, seed, edits=()):
        words = torch.from_numpy(numbers * 512 + numbers * 40503 % 512).to(torch.int32)
        got = torch.full((len(numbers),), float("nan"))
        launcher = PtxLauncher(jitter=1.0, seed=seed, edits=edits, race=False)
        arguments = {"words": words, "noise": got, "count": len(numbers), "SIZE": 256}
        launcher(kernels.gumbel_of_words_kernel, -(-len(numbers) // 256), arguments)
        expected = truth.gumbel_from_words(words.numpy().view(np.uint32))
        error = np.abs(got.double().numpy() - expected) / np.maximum(1.0, np.abs(expected))
        error[np.isnan(error)] = np.inf
        return error.max(), numbers[error.argmax()]

    return measure


@pytest.mark.parametrize("seed", [1, 2])
def test_noise_of_every_u(worst_error, seed):
    """All 2^23 of them; each seed moves each logarithm up, down, or not at all."""
    error, number = worst_error(np.arange(2**23), seed)
    assert error <= BOUND, f"u number {number}"


def test_the_approximate_logarithm_alone_would_not_do(worst_error):
    """With the hardware's logarithm for the first one, g is far off, or NaN, where winners are drawn."""
    error, _ = worst_error(np.arange(NEAR_ONE, 2**23), 1, edits=("noise.log2_uniform=log2_approximate",))
    assert error > 100 * BOUND
