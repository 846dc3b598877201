"""The PTX that Triton makes for sm_90, run on the CPU: the public functions against the truth.

Every run looks for races; threads run in order, the other way round, and by chance; approximate instructions
are exact, or as far off as their documentation allows.
"""

import numpy as np
import pytest
import torch
import truth
from cases import check_forward, double, make, output_gradients
from estimator_checks import ESTIMATORS, check_estimator, check_indices
from gradcases import assert_gradients, library_gradients
from interpreter import launching_with
from test_nearest import check as check_nearest
from test_triton_interpreted import check_both, check_numbers_on_the_device

from fqvae_kernels import backends
from fqvae_kernels.backends._triton.launch import forward_tile

EVERY = (True, True, True)
PAPER = make(25, 64, temperature=0.7, row_offset=2**32 - 9)  # its codebook, 16 lanes a row


@pytest.mark.parametrize("temperature", [0.01, 0.14, 0.7, 100.0])
def test_float32(compiled, temperature):
    check_both(PAPER.but(temperature=temperature), "triton", EVERY)
    assert set(compiled.ran) == {
        "gumbel_forward_kernel",
        "gumbel_weights_kernel",
        "backward_kernel",
        "sum_partials_kernel",
    }


@pytest.mark.parametrize("rows", [1, 8, 9, 16, 17])
def test_edges_of_tiles(compiled, rows):
    """Rows about the tiles of forward (8) and backward (16), codes about a multiple of 4."""
    for codes in (61, 63, 64):
        case = make(rows, codes, temperature=0.5)
        given = output_gradients(case, weights=False)
        check_forward(case, case.call("triton"), weights=False)
        got = library_gradients(case, "triton", *given)
        assert_gradients(case, got, case.true_gradients(*given))


def test_many_rows(compiled, few_rows_are_many):
    """One lane a row, two rows a lane, and backward programs that take several shares each."""
    for rows, codes in ((255, 64), (300, 5)):
        assert forward_tile(rows, codes) == ((256, 1) if rows > 255 else (128, 1))
        case = make(rows, codes, temperature=0.3)
        check_forward(case, case.call("triton"), weights=False)


def test_half_per_latent_hard(compiled):
    case = make(21, 18, dtype=torch.bfloat16, latents=3, temperature=0.4, hard=True)
    check_both(case, "triton", EVERY)
    assert "one_hot_kernel" in compiled.ran


def test_logits(compiled):
    case = make(13, 18, dtype=torch.float16, is_logits=True, temperature=0.4)
    input = case.input.clone()
    input[:, 4], input[3, 0], input[5] = -float("inf"), float("nan"), -float("inf")
    case = case.but(input=input)
    check_forward(case, case.call("triton", return_weights=True), weights=True)
    given = output_gradients(case)
    assert_gradients(case, library_gradients(case, "triton", *given), case.true_gradients(*given))


def test_codebooks_of_several_chunks(compiled):
    """K above 128: a row's gradient is added up chunk by chunk."""
    case = make(19, 131, temperature=0.6)
    given = output_gradients(case, weights=False)
    check_forward(case, case.call("triton"), weights=False)
    assert_gradients(case, library_gradients(case, "triton", *given), case.true_gradients(*given))


@pytest.mark.parametrize("codes", [1, 3])
def test_few_codes(compiled, codes):
    case = make(130, codes, temperature=0.6)
    given = output_gradients(case, weights=False)
    check_forward(case, case.call("triton"), weights=False)
    assert_gradients(case, library_gradients(case, "triton", *given), case.true_gradients(*given))


def test_wide_codebooks_and_far_z(compiled):
    case = make(25, 64, scale=1e4, temperature=0.7)
    input = case.input.clone()
    input[:6] = torch.tensor([3e38, -3e38, 1e10, float("nan"), float("inf"), -1e19])
    case = case.but(input=input)
    check_forward(case, case.call("triton"), weights=False, quantized_scale=case.codebook.abs().max().item())
    given = output_gradients(case, weights=False)
    assert_gradients(case, library_gradients(case, "triton", *given), case.true_gradients(*given))


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_drawn_estimators(compiled, estimator):
    """Scalars with 16 lanes a row, logits with a masked code and bad rows, codebooks per latent, chunks."""
    check_estimator(PAPER, "triton", estimator)
    assert set(compiled.ran) == {
        "drawn_forward_kernel",
        "one_hot_kernel",
        "backward_kernel",
        "sum_partials_kernel",
    }
    check_estimator(make(21, 18, dtype=torch.bfloat16, latents=3, temperature=0.4), "triton", estimator)
    check_estimator(make(9, 131, temperature=0.6), "triton", estimator)
    case = make(13, 18, dtype=torch.float16, is_logits=True, temperature=0.4)
    input = case.input.clone()
    input[:, 4], input[3, 0], input[5] = -float("inf"), float("nan"), -float("inf")
    check_estimator(case.but(input=input), "triton", estimator)
    check_estimator(make(9, 18, dtype=torch.float64, temperature=0.3), "triton", estimator)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_many_rows_of_drawn_estimators(compiled, few_rows_are_many, estimator):
    for rows, codes in ((255, 64), (300, 5)):
        check_estimator(make(rows, codes, temperature=0.3), "triton", estimator)


def test_many_codes_of_drawn_estimators(compiled):
    """Boundaries are off by no more than 2e-6: sums over 2^17 codes lose next to nothing.

    Equal terms are rounded the same way again and again, and those of the second half otherwise than those of
    the first.
    """
    codes = 2**17
    logits = torch.full((16, codes), -1.3)
    logits[:, : codes // 2] = -torch.linspace(0.9, 1.9, 16)[:, None]
    logits[:, 0] = 0.0
    case = make(16, codes, is_logits=True, seed=5).but(input=logits)
    check_indices(case, case.call("triton", estimator="reinmax", return_kl=False).indices)


def test_kept_weights(compiled):
    """Without a gradient of the temperature, the backward pass reads the weights."""
    for case in (PAPER, make(13, 18, is_logits=True), make(9, 131, latents=3)):
        given = output_gradients(case)
        got = library_gradients(case, "triton", *given, requires=(True, True, False))
        true = case.true_gradients(*given)
        true.temperature = 0.0
        assert_gradients(case, got, true)


def test_bad_codes(compiled):
    book = PAPER.codebook.clone()
    book[7] = float("nan")
    case = PAPER.but(codebook=book)
    got = library_gradients(case, "triton", *output_gradients(case))
    assert not any(gradient.any() for gradient in got)
    for estimator in ("gumbel", *ESTIMATORS):
        out = case.call("triton", estimator=estimator, return_weights=True)
        assert all(output.isnan().all() for output in (out.quantized, out.kl, out.weights))
        assert ((out.indices >= 0) & (out.indices < 64)).all()


def test_masked_codes_at_a_temperature_beyond_all(compiled):
    logits = torch.zeros(6, 13)
    logits[:, [0, 5, 12]] = -float("inf")
    case = make(6, 13, is_logits=True, temperature=1e30).but(input=logits)
    got = case.call("triton", return_weights=True)
    torch.testing.assert_close(got.weights, torch.where(logits == 0, 0.1, 0.0))
    assert not got.weights[:, [0, 5, 12]].any()


def test_nearest(compiled):
    case = make(33, 18, dtype=torch.bfloat16)
    check_nearest(case.input, case.codebook, "triton")


def test_the_order_of_threads_changes_no_bit(serves_cpu):
    """Nor does a second run: the sums are added up in a fixed order."""
    from compiled import PtxLauncher

    case = PAPER.but(temperature=0.2)
    results = []
    for order in (0, 1, 2, 2):
        with launching_with(PtxLauncher(order=order, seed=len(results))):
            out = case.call("triton", return_weights=True)
            gradients = library_gradients(case, "triton", *output_gradients(case))
            results.append((out.quantized, out.indices, out.kl, out.weights, *gradients))
    for other in results[1:]:
        assert all(torch.equal(x, y) for x, y in zip(results[0], other, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_numbers_on_the_device(compiled, dtype):
    check_numbers_on_the_device(dtype)


def test_float64(compiled):
    check_both(make(9, 18, dtype=torch.float64, latents=3, temperature=0.3), "triton", EVERY)


def test_noise_is_the_contracts(compiled):
    for rows, codes, offset, seed in ((5, 67, 2**32 - 2, 2**64 - 3), (9, 6, 2**62, 7)):
        got = backends.get("triton").gumbel_noise(
            seed, rows, codes, offset, torch.device("cpu"), torch.float32
        )
        expected = truth.gumbel(seed, rows, codes, offset)
        assert (np.abs(double(got) - expected) <= 2e-6 * np.maximum(1.0, np.abs(expected))).all()
