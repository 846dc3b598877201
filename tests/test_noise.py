"""The noise: words bit for bit, the value for every u, the public gumbel_noise."""

import numpy as np
import pytest
import torch
import truth
from cases import double

import fqvae_kernels
from fqvae_kernels import reference

SEEDS = [0, 1, 1234, 2**31, 2**32 - 1, 2**32, 2**32 + 5, 0x299F31D0A4093822, 2**63 - 1, 2**63, 2**64 - 1]
OFFSETS = [0, 1, 2**31 - 2, 2**32 - 3, 2**32, 3 * 2**32 + 7, 2**62 + 12345, 2**63 - 40]
CODES = [1, 2, 3, 4, 5, 7, 8, 13, 16, 17, 63, 64, 65, 67, 130]


def native_words(native, seed, rows, codes, row_offset=0, threads=1):
    out = torch.empty(rows, codes, dtype=torch.int32)
    native.philox_words(seed, row_offset, rows, codes, out.data_ptr(), threads)
    return out.numpy().view(np.uint32)


def words_of(backend, native, seed, rows, codes, row_offset=0):
    if backend == "cpu":
        return native_words(native, seed, rows, codes, row_offset)
    return reference_words(seed, rows, codes, row_offset)


def reference_words(seed, rows, codes, row_offset):
    return reference.philox_words(seed, rows, codes, row_offset=row_offset).numpy().astype(np.uint32)


@pytest.fixture
def draw(backend, request):
    """words(seed, rows, codes, row_offset) of the backend."""
    native = request.getfixturevalue("native") if backend == "cpu" else None
    return lambda *given: words_of(backend, native, *given)


@pytest.mark.parametrize("seed", SEEDS)
def test_words_bit_for_bit_for_seeds(draw, seed):
    for codes in (5, 64):
        np.testing.assert_array_equal(draw(seed, 37, codes, 0), truth.words(seed, 37, codes))


@pytest.mark.parametrize("row_offset", OFFSETS)
def test_words_bit_for_bit_at_row_offsets(draw, row_offset):
    seed = 2**40 + 17
    got = draw(seed, 37, 6, row_offset)
    np.testing.assert_array_equal(got, truth.words(seed, 37, 6, row_offset))


@pytest.mark.parametrize("codes", CODES)
def test_words_bit_for_bit_for_codes(draw, codes):
    for rows in (1, 2, 15, 16, 17, 33):
        np.testing.assert_array_equal(draw(99, rows, codes, 3), truth.words(99, rows, codes, 3))


def test_words_of_no_rows(draw):
    assert draw(1, 0, 5, 0).shape == (0, 5)


def test_floor_draws_the_words(every_native):
    """What benchmarks time: words thrown away, but for the last 16 codes of the last rows drawn together."""
    together = {"avx512": 16, "avx2": 8, "portable": 4, "scalar": 1, "device": 1}[
        every_native.instruction_set()
    ]
    for groups, codes in ((1, 16), (3, 64), (2, 256)):
        words = truth.words(77, groups * together, codes)
        expected = int(np.bitwise_xor.reduce(words[-together:, -16:], axis=None))
        assert every_native.philox_floor(77, groups * together, codes, 1) == expected
    assert every_native.philox_floor(77, 0, 5, 1) == 0


@pytest.fixture
def noise_of_words(backend, request, monkeypatch):
    """noise(word, dtype): the backend's noise of given words, an int64 tensor that holds 32-bit values."""
    if backend == "cpu":
        native = request.getfixturevalue("native")

        def noise(word, dtype):
            bits = word.to(torch.int32)
            out = torch.empty(word.numel(), dtype=dtype)
            native.gumbel_from_words(bits.data_ptr(), word.numel(), dtype == torch.float64, out.data_ptr())
            return out

        return noise

    def noise(word, dtype):
        # The reference's noise with its generator replaced by the given words.
        monkeypatch.setattr(reference, "philox_words", lambda *_, **__: word)
        return reference.gumbel_noise(0, 1, word.numel(), dtype=dtype)

    return noise


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 2e-6), (torch.float64, 1e-14)])
def test_noise_of_every_u(noise_of_words, dtype, bound):
    """All 2^23 values of u. The nine low bits of a word, which must not matter, vary too."""
    every = torch.arange(2**23, dtype=torch.int64) * 512
    every += torch.arange(2**23) * 2654435761 % 512
    got = double(noise_of_words(every, dtype))
    expected = truth.gumbel_from_words(every.numpy())
    error = np.abs(got - expected) / np.maximum(1.0, np.abs(expected))
    worst = int(error.argmax())
    assert error[worst] <= bound, f"u number {worst}: got {got[worst]}, expected {expected[worst]}"


@pytest.mark.parametrize("count", [0, 1, 2, 7, 8, 15, 16, 17, 31, 33, 100])
def test_noise_of_a_few_words(noise_of_words, count):
    word = torch.arange(count, dtype=torch.int64) * 2654435761 % 2**32
    for dtype in (torch.float32, torch.float64):
        got = noise_of_words(word, dtype)
        np.testing.assert_allclose(double(got), truth.gumbel_from_words(word.numpy()), rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 2e-6), (torch.float64, 1e-14)])
@pytest.mark.parametrize("shape", [(0, 5), (1, 1), (3, 7), (17, 64), (100, 67), (2, 1000)])
def test_gumbel_noise(backend, shape, dtype, bound):
    """The public function (it takes the best backend, here with each instruction set)."""
    got = fqvae_kernels.gumbel_noise(2**35 + 1, *shape, row_offset=2**32 - 2, dtype=dtype)
    assert got.shape == shape and got.dtype == dtype and got.device.type == "cpu"
    expected = truth.gumbel(2**35 + 1, *shape, 2**32 - 2)
    assert (np.abs(double(got) - expected) <= bound * np.maximum(1.0, np.abs(expected))).all()


def test_gumbel_noise_defaults_to_float32_and_row_zero():
    got = fqvae_kernels.gumbel_noise(7, 4, 3)
    assert got.dtype == torch.float32
    np.testing.assert_allclose(double(got), truth.gumbel(7, 4, 3), atol=1e-5)


def test_gumbel_noise_takes_a_seed_tensor():
    assert torch.equal(
        fqvae_kernels.gumbel_noise(torch.tensor(-3), 4, 3), fqvae_kernels.gumbel_noise(2**64 - 3, 4, 3)
    )


@pytest.mark.parametrize("codes", [3, 16, 67])
def test_kernels_use_the_words_of_the_public_noise(backend, codes):
    """With a flat score the index is the argmax of the noise alone, so the kernels draw just these words."""
    rows = 200
    z = torch.zeros(rows)
    result = fqvae_kernels.gumbel_quantize(
        z, torch.zeros(codes), seed=2**50 + 3, row_offset=11, backend=backend
    )
    noise = truth.gumbel(2**50 + 3, rows, codes, 11)
    best = noise.max(axis=1)
    chosen = noise[np.arange(rows), result.indices.numpy()]
    assert (best - chosen <= 1e-5).all()


def test_seeds_and_rows_give_different_noise():
    a = fqvae_kernels.gumbel_noise(1, 50, 8)
    assert not torch.equal(a, fqvae_kernels.gumbel_noise(2, 50, 8))
    assert not torch.equal(a, fqvae_kernels.gumbel_noise(1 + 2**32, 50, 8))
    assert len(torch.unique(a)) > 390
