"""The number of threads changes no bit, and the threads' floating-point state is left as it was."""

import numpy as np
import pytest
import torch
from cases import DTYPES, make, output_gradients
from gradcases import library_gradients

import fqvae_kernels

ROWS = (0, 1, 15, 17, 100, 1023, 4099, 40_000)


def everything(case, given):
    result = case.call("cpu", return_weights=given[2] is not None)
    gradients = library_gradients(case, "cpu", *given)
    return [x for x in (*result, *gradients) if x is not None]


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("is_logits", [False, True])
@pytest.mark.parametrize("latents", [0, 1, 4])
def test_bit_identical_for_any_number_of_threads(cpu_backend, threads, latents, is_logits, hard):
    for rows in ROWS:
        rows -= rows % max(latents, 1)
        case = make(rows, 19, latents=latents, is_logits=is_logits, hard=hard, temperature=0.5)
        # Without weights for the many rows: the ways through the kernels differ.
        given = output_gradients(case, weights=rows < 5000)
        threads(1)
        expected = everything(case, given)
        for number in (2, 3, 7):
            threads(number)
            assert torch.get_num_threads() == number
            for value, one in zip(everything(case, given), expected, strict=True):
                assert torch.equal(value, one), (rows, number)


@pytest.mark.parametrize("codes", [1, 64, 67])
@pytest.mark.parametrize("dtype", DTYPES)
def test_bit_identical_for_every_dtype(every_native, threads, dtype, codes):
    case = make(40_000, codes, dtype=dtype, temperature=0.7)
    given = output_gradients(case, weights=False)
    threads(1)
    expected = everything(case, given)
    for number in (2, 7):
        threads(number)
        for value, one in zip(everything(case, given), expected, strict=True):
            assert torch.equal(value, one), number


def test_per_latent_codebooks_with_many_latents(cpu_backend, threads):
    """More codebooks than a thread has rows."""
    case = make(3 * 2000, 5, latents=2000)
    given = output_gradients(case)
    threads(1)
    expected = everything(case, given)
    for number in (2, 7):
        threads(number)
        for value, one in zip(everything(case, given), expected, strict=True):
            assert torch.equal(value, one), number


def test_repeated_calls_are_bit_identical(cpu_backend, threads):
    threads(2)
    case = make(40_000, 64)
    given = output_gradients(case, weights=False)
    expected = everything(case, given)
    for _ in range(5):
        for value, one in zip(everything(case, given), expected, strict=True):
            assert torch.equal(value, one)


def test_nearest_and_noise_for_any_number_of_threads(cpu_backend, threads):
    case = make(40_000, 33)
    threads(1)
    nearest = fqvae_kernels.nearest_quantize(case.input, case.codebook, backend=cpu_backend)
    noise = fqvae_kernels.gumbel_noise(3, 5000, 33)
    for number in (2, 7):
        threads(number)
        again = fqvae_kernels.nearest_quantize(case.input, case.codebook, backend=cpu_backend)
        assert torch.equal(again.indices, nearest.indices) and torch.equal(again.quantized, nearest.quantized)
        assert torch.equal(fqvae_kernels.gumbel_noise(3, 5000, 33), noise)


def test_calls_from_several_python_threads(cpu_backend):
    """The kernels release the interpreter's lock; calls at the same time do not disturb each other."""
    from concurrent.futures import ThreadPoolExecutor

    cases = [make(3000 + i, 16 + i, temperature=0.5) for i in range(8)]
    expected = [case.call(cpu_backend) for case in cases]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            for got, one in zip(pool.map(lambda case: case.call(cpu_backend), cases), expected, strict=True):
                assert torch.equal(got.quantized, one.quantized) and torch.equal(got.indices, one.indices)


def denormals_survive() -> bool:
    """Whether products that are denormal come out as such, on this thread and on torch's others."""
    tiny = torch.full((200_000,), 1e-40)
    wide = np.full(4, 1e-310)
    return bool((tiny * 0.5 > 0).all()) and bool((wide * 0.5 > 0).all()) and 1e-310 * float(np.pi) > 0


def run_everything(backend):
    case = make(20_000, 16, scale=100.0, temperature=0.05)
    library_gradients(case, backend, *output_gradients(case))
    fqvae_kernels.nearest_quantize(case.input, case.codebook, backend=backend)
    fqvae_kernels.gumbel_noise(1, 2000, 16)


def test_denormals_are_as_before(backend, threads):
    for number in (1, 2):
        threads(number)
        assert denormals_survive()
        run_everything(backend)
        assert denormals_survive(), f"{number} threads: the flush-to-zero mode leaked"


def test_flushing_that_the_user_chose_stays(backend, threads):
    threads(1)
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush denormals")
    try:
        run_everything(backend)
        assert (torch.full((16,), 1e-40) * 0.5 == 0).all()
    finally:
        torch.set_flush_denormal(False)
    assert denormals_survive()


def test_exceptions_and_rounding_mode_are_as_before(cpu_backend):
    """What numpy warns about is its own doing, not what a kernel left behind."""
    run_everything(cpu_backend)
    with np.errstate(all="raise"):
        assert np.float32(1.0) / np.float32(3.0) == np.float32(0.33333334)
        assert np.float64(1.0) + np.float64(2.0**-53) == 1.0
