"""The estimators that draw the index, straight_through and reinmax, against the truth; and bad codes."""

import itertools
import random

import numpy as np
import pytest
import torch
from cases import DTYPES, Case, assert_same, check_forward, double, make, output_gradients
from gradcases import (
    assert_gradients,
    check_pass,
    gradient_bound,
    leaf,
    library_pass,
    naive_gradients,
    stored_rounding,
    worst_error,
)
from test_forward import cluster_case, divisor, far_case
from test_statistics import chi_squared

import fqvae_kernels

DRAWN = ("straight_through", "reinmax")
EVERY = ("gumbel", *DRAWN)
CODES = (1, 2, 3, 5, 64, 65, 130, 1000)
TEMPERATURES = (0.05, 0.5, 1.0, 5.0)
SUBSETS = [s for s in itertools.product((False, True), repeat=3) if any(s)]
NAN, INF = float("nan"), float("inf")


@pytest.fixture(params=DRAWN)
def estimator(request):
    return request.param


def chosen(gradients, subset):
    return [g if use else None for g, use in zip(gradients, subset, strict=True)]


@pytest.mark.parametrize("codes", CODES)
def test_grid(backend, estimator, codes):
    """Every dtype, one and several codebooks, z and logits; temperatures and losses vary."""
    draw = random.Random(f"{codes} {estimator}")
    modes = list(itertools.product(DTYPES, (False, True), (False, True)))
    for rows in (0, 1, 3, 17, 40):
        for dtype, per_latent, is_logits in draw.sample(modes, 8 if rows > 3 else 3):
            case = make(
                rows,
                codes,
                dtype=dtype,
                latents=divisor(rows) if per_latent else 0,
                is_logits=is_logits,
                temperature=draw.choice(TEMPERATURES),
                seed=2**33 + codes,
                row_offset=2**32 - 50,
                estimator=estimator,
            )
            check_pass(case, backend, *chosen(output_gradients(case), draw.choice(SUBSETS)))


@pytest.mark.parametrize("requires", SUBSETS, ids=lambda s: "".join(itertools.compress("zmt", s)))
def test_every_subset_of_requires_grad(backend, estimator, requires):
    """For every set of outputs in the loss: a gradient for what requires one, and for nothing else."""
    for subset, latents, is_logits in itertools.product(SUBSETS, (0, 3), (False, True)):
        case = make(18, 11, latents=latents, is_logits=is_logits, estimator=estimator, temperature=0.6)
        given = chosen(output_gradients(case), subset)
        result, got = library_pass(case, backend, *given, requires=requires)
        assert all(needed or gradient is None for gradient, needed in zip(got, requires, strict=True))
        true = case.true_gradients(*given, indices=result.indices)
        whole = (
            torch.from_numpy(true.input),
            torch.from_numpy(true.codebook),
            torch.tensor(true.temperature),
        )
        dtypes = (case.dtype, case.codebook.dtype, torch.float64)
        filled = [
            g if needed else t.to(d) for g, needed, t, d in zip(got, requires, whole, dtypes, strict=True)
        ]
        assert_gradients(case, filled, true)


@pytest.mark.parametrize("dtype", DTYPES)
def test_no_worse_than_naive_in_the_same_dtype(backend, estimator, dtype):
    for codes, temperature, is_logits in itertools.product((5, 67), (0.1, 3.0), (False, True)):
        case = make(
            100, codes, dtype=dtype, temperature=temperature, is_logits=is_logits, estimator=estimator
        )
        given = output_gradients(case)
        result, got = library_pass(case, backend, *given)
        true = case.true_gradients(*given, indices=result.indices)
        ours = worst_error(case, got, true)
        naive = worst_error(case, naive_gradients(case, *given, indices=result.indices), true)
        for name, our, theirs, stored in zip("zmt", ours, naive, stored_rounding(case), strict=True):
            assert our <= theirs + gradient_bound(case) + stored, (
                f"{name}: error {our} against {theirs}\n{case}"
            )


@pytest.mark.parametrize("dtype", DTYPES)
def test_far_z(backend, estimator, dtype):
    for codes, temperature in itertools.product((1, 2, 5, 67), (0.05, 5.0)):
        case = far_case(dtype, codes, temperature=temperature, estimator=estimator)
        check_pass(case, backend, *output_gradients(case))


@pytest.mark.parametrize("falling", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_far_z_before_a_cluster_of_codes(backend, estimator, dtype, falling):
    for temperature in (0.01, 5.0):
        case = cluster_case(dtype, falling, temperature=temperature, estimator=estimator)
        check_pass(case, backend, *output_gradients(case))


def test_logits_of_a_million_lose_no_digits(backend, estimator):
    """At so high a temperature the weights are all alive, though the logits are far below the largest."""
    case = make(8, 16, temperature=1e6, estimator=estimator)
    case = case.but(input=torch.linspace(-1800.0, 1700.0, 8), codebook=torch.linspace(-211.0, 150.0, 16))
    check_pass(case, backend, *output_gradients(case))


@pytest.mark.parametrize("scale", [1e2, 1e4])
def test_wide_codebooks(backend, estimator, scale):
    for codes, temperature, dtype in itertools.product(
        (3, 64, 130), (0.05, 5.0), (torch.float32, torch.bfloat16, torch.float64)
    ):
        case = make(40, codes, dtype=dtype, scale=scale, temperature=temperature, estimator=estimator)
        check_pass(case, backend, *output_gradients(case))


def test_equal_and_duplicate_codes(backend, estimator):
    for codes in (2, 9, 64, 130):
        case = make(60, codes, temperature=0.5, estimator=estimator)
        check_pass(case.but(codebook=torch.full_like(case.codebook, 0.75)), backend, *output_gradients(case))
        book = case.codebook.clone()
        book[codes // 2 :] = book[: codes - codes // 2].clone()
        check_pass(case.but(codebook=book), backend, *output_gradients(case))


@pytest.mark.parametrize("dtype", DTYPES)
def test_masked_codes(backend, estimator, dtype):
    """-inf beside finite logits: never drawn, no gradient of that logit."""
    for codes in (2, 9, 64, 67):
        case = make(50, codes, dtype=dtype, is_logits=True, temperature=0.5, estimator=estimator)
        logits = case.input.clone()
        logits[:25, 0] = -INF
        logits[25:, codes - 1] = -INF
        if codes > 8:
            logits[::3, codes // 2 : codes - 2] = -INF
        case = case.but(input=logits)
        _, got = check_pass(case, backend, *output_gradients(case))
        assert (got[0][logits == -INF] == 0).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_extreme_logits(backend, estimator, dtype):
    """Finite logits at the ends of the range: their difference overflows, and nothing else does."""
    big = torch.finfo(dtype).max
    case = make(4, 5, dtype=dtype, is_logits=True, temperature=0.5, estimator=estimator)
    rows = [[big, -big, 0, 1, 2], [-big] * 5, [big] * 5, [-big, -big / 2, big / 4, big / 4, 0]]
    case = case.but(input=torch.tensor(rows, dtype=torch.float64).to(dtype))
    check_pass(case, backend, *output_gradients(case))


@pytest.mark.parametrize(("dtype", "is_logits"), [(torch.float32, False), (torch.float64, True)])
def test_65536_codes(backend, estimator, dtype, is_logits):
    """The sum of so many probabilities is right to 2e-6 at every code."""
    case = make(6, 65536, dtype=dtype, is_logits=is_logits, temperature=0.5, estimator=estimator)
    check_pass(case, backend, *output_gradients(case), bound=case.tolerance)


@pytest.mark.parametrize("is_logits", [False, True])
def test_rows_are_numbered_across_2_to_the_32(backend, estimator, is_logits):
    """A shard draws what the whole batch draws, with codes enough that another row's u shows."""
    case = make(
        64, 1000, is_logits=is_logits, row_offset=2**32 - 30, estimator=estimator, dtype=torch.float64
    )
    whole = case.call(backend)
    check_forward(case, whole, weights=False)
    for first in (0, 29, 30, 31, 63):
        shard = case.but(input=case.input[first:], row_offset=case.row_offset + first).call(backend)
        assert torch.equal(shard.indices, whole.indices[first:])


def test_the_index_depends_on_the_seed_alone(backend):
    """Neither on the temperature nor on which of the two estimators it is; the seed may be a tensor."""
    case = make(500, 64, estimator="reinmax", seed=2**63 + 5)
    indices = case.call(backend).indices
    for other in (case.but(temperature=0.05), case.but(estimator="straight_through"), case.but(hard=False)):
        assert torch.equal(other.call(backend).indices, indices)
    as_tensor = torch.tensor(5 - 2**63)
    assert torch.equal(case.call(backend, seed=as_tensor).indices, indices)
    assert not torch.equal(case.but(seed=7).call(backend).indices, indices)


# Rows of seed 2024 whose u is the largest there is, and the smallest.
LARGEST_U, SMALLEST_U = 5583252, 11121291


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_ends_of_u(backend, estimator, dtype):
    """The rounded sum of the posterior may stay below u: the last code that is not masked is drawn."""
    for codes in (1, 2, 7, 64, 67, 130, 1000):
        for row_offset in (LARGEST_U, SMALLEST_U):
            plain = make(
                1, codes, dtype=dtype, is_logits=True, seed=2024, row_offset=row_offset, estimator=estimator
            )
            check_forward(plain, plain.call(backend), weights=False)
            for masked in (1, codes // 2, codes - 1):
                for where in (slice(codes - masked, None), slice(0, masked)):
                    logits = plain.input.clone()
                    logits[:, where] = -INF
                    if torch.isfinite(logits).any():
                        case = plain.but(input=logits)
                        check_forward(case, case.call(backend), weights=False)


@pytest.mark.parametrize("codes", [2, 5, 17, 64, 130])
def test_indices_follow_the_posterior(backend, estimator, codes):
    book = torch.linspace(-1.0, 1.0, codes)
    case = Case(torch.full((20_000,), 0.4), book, seed=codes, estimator=estimator, temperature=0.2)
    q = torch.softmax(-((0.4 - book.double()) ** 2), 0).numpy()
    assert chi_squared(case.call(backend).indices, q) > 1e-3


@pytest.mark.parametrize("is_logits", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_bad_rows(backend, estimator, dtype, is_logits):
    """NaN and infinity: NaN comes out and no gradient goes back, even where NaN comes in."""
    for codes in (3, 64, 67):
        case = make(40, codes, dtype=dtype, is_logits=is_logits, temperature=0.5, estimator=estimator)
        input, bad = case.input.clone(), [2, 16, 39]
        for row, value in zip(bad, (NAN, INF, -INF), strict=True):
            input[(row, 0) if is_logits and row != 39 else row] = value
        case = case.but(input=input)
        given = output_gradients(case)
        for gradient in given:
            gradient[bad] = NAN
        _, got = check_pass(case, backend, *given)
        assert (got[0][bad] == 0).all()


@pytest.mark.parametrize("codes", [1, 16, 67])
def test_rows_do_not_depend_on_their_neighbours(backend, estimator, codes):
    case = make(100, codes, temperature=0.4, estimator=estimator)
    given = output_gradients(case)
    whole, gradients = library_pass(case, backend, *given)
    for row in (0, 1, 15, 16, 50, 99):
        one = case.but(input=case.input[row : row + 1], row_offset=row)
        result, got = library_pass(one, backend, *(g[row : row + 1] for g in given))
        for name in ("quantized", "indices", "kl", "weights"):
            assert_same(getattr(result, name)[0], getattr(whole, name)[row], backend, (name, row))
        assert_same(got[0][0], gradients[0][row], backend, row)


def test_strided_inputs_and_gradients(backend, estimator):
    case = make(24, 7, latents=4, temperature=0.4, estimator=estimator)
    given = output_gradients(case)
    _, plain = library_pass(case, backend, *given)
    z, book = leaf(case.input.t().contiguous()), leaf(case.codebook.t().contiguous())
    result = case.call(backend, input=z.t(), codebook=book.t(), return_weights=True)
    stepped = [torch.stack((g, g), dim=-1)[..., 0] for g in given]
    torch.autograd.backward((result.quantized, result.kl, result.weights), stepped)
    assert_same(z.grad.t(), plain[0], backend, "z")
    assert_same(book.grad.t(), plain[1], backend, "codebook")


@pytest.mark.parametrize("estimator", EVERY)
@pytest.mark.parametrize("is_logits", [False, True])
def test_without_kl(backend, estimator, is_logits):
    """kl is None, and what was asked for is as it is with kl."""
    for hard, weights, dtype in itertools.product((False, True), (False, True), (torch.float32, torch.half)):
        if hard and estimator != "gumbel":
            continue
        case = make(33, 67, is_logits=is_logits, dtype=dtype, estimator=estimator, hard=hard, latents=3)
        a, _, v = output_gradients(case, weights=weights)
        result, got = library_pass(case, backend, a, None, v, return_kl=False)
        check_forward(case, result, weights=weights, kl=False)
        whole, expected = library_pass(case, backend, a, None, v)
        assert torch.equal(result.indices, whole.indices)
        assert_same(result.quantized, whole.quantized, backend, "quantized")
        assert_gradients(case, got, case.true_gradients(a, None, v, indices=result.indices))
        assert_gradients(case, expected, case.true_gradients(a, None, v, indices=result.indices))


@pytest.mark.parametrize("estimator", EVERY)
@pytest.mark.parametrize("code", [NAN, INF, -INF])
@pytest.mark.parametrize("is_logits", [False, True])
def test_a_bad_code_spoils_its_codebook_alone(backend, estimator, code, is_logits):
    """NaN out, an index in range and no gradient at all; the other codebooks give what they gave."""
    for (codes, place), dtype in itertools.product(((2, 0), (64, -1), (67, 30)), DTYPES):
        clean = make(
            24, codes, latents=3, dtype=dtype, is_logits=is_logits, estimator=estimator, temperature=0.5
        )
        book = clean.codebook.clone()
        book[1, place] = code
        case = clean.but(codebook=book, note="bad code")
        given = output_gradients(case)
        result, got = check_pass(case, backend, *given)
        before = clean.call(backend, return_weights=True)
        for name in ("quantized", "kl", "weights"):
            assert getattr(result, name)[:, 1].isnan().all(), name
            for latent in (0, 2):
                one, other = getattr(result, name)[:, latent], getattr(before, name)[:, latent]
                assert_same(one, other, backend, name)
        assert not got[0][:, 1].any() and not got[1][1].any()


@pytest.mark.parametrize("estimator", EVERY)
def test_the_largest_codes_pass_no_gradient_of_a_bad_row(backend, estimator):
    """A zero that a code near the end of the range multiplies is still zero."""
    for dtype, hard, weights in itertools.product(DTYPES, (False, True), (False, True)):
        big = torch.finfo(torch.float64 if dtype == torch.float64 else torch.float32).max
        book = torch.tensor([big, -big], dtype=torch.float64)
        logits = torch.tensor([[NAN, 0.0], [-INF, -INF], [0.0, INF]], dtype=dtype)
        for is_logits, input in ((True, logits), (False, torch.tensor([NAN, -INF, INF], dtype=dtype))):
            case = Case(input, book, is_logits, hard=hard and estimator == "gumbel", estimator=estimator)
            _, got = library_pass(case, backend, *output_gradients(case, weights=weights))
            assert not any(gradient.any() for gradient in got), f"{got}\n{case}"


def test_nearest_of_a_bad_code(backend):
    for code, dtype in itertools.product((NAN, INF, -INF), DTYPES):
        book = torch.tensor([[0.0, 1.0, 2.0], [0.0, 1.0, code]], dtype=torch.float32)
        z = leaf(torch.tensor([[0.9, 0.9], [-3.0, 100.0]], dtype=dtype))
        result = fqvae_kernels.nearest_quantize(z, book, backend=backend)
        assert result.quantized[:, 0].tolist() == [1.0, 0.0] and result.quantized[:, 1].isnan().all()
        assert ((result.indices >= 0) & (result.indices < 3)).all()
        result.quantized.backward(torch.ones_like(z))
        assert z.grad.tolist() == [[1.0, 0.0], [1.0, 0.0]]


@pytest.mark.parametrize("value", ["nonsense", "Gumbel", "", "nearest", None, 3])
def test_a_bad_estimator_is_named(backend, value):
    """And those that there are, if it is a string."""
    for is_logits in (False, True):
        with pytest.raises((TypeError, ValueError), match="estimator") as caught:
            make(4, 3, is_logits=is_logits).call(backend, estimator=value)
        assert not isinstance(value, str) or all(name in str(caught.value) for name in EVERY)
    case = make(4, 3)
    assert torch.equal(case.call(backend, estimator="gumbel").quantized, case.call(backend).quantized)


@pytest.mark.parametrize("value", [None, 1, "no"])
def test_a_bad_return_kl_is_named(backend, value):
    with pytest.raises(TypeError, match="return_kl"):
        make(4, 3).call(backend, return_kl=value)


def expectation(backend, logits, book, slope, estimator, temperature=1.0):
    """The expected gradient of the logits: each index that rows drew has one gradient, which q weighs."""
    rows = 4000
    input = leaf(logits.expand(rows, -1))
    case = Case(input, book, True, estimator=estimator, temperature=temperature, seed=3)
    result = case.call(backend, input=input)
    result.quantized.backward(slope(result.quantized.detach()))
    q = torch.softmax(logits, -1)
    total = torch.zeros_like(logits)
    for k in range(len(book)):
        drew = (result.indices == k).nonzero().flatten()
        assert len(drew) > 1, "a code that no row drew"
        assert_same(input.grad[drew[0]], input.grad[drew[-1]], backend, k)
        total += q[k] * input.grad[drew[0]]
    return total


def test_reinmax_is_exact_for_a_quadratic_loss_at_temperature_1(backend):
    """Liu et al., NeurIPS 2023. straight_through is not, nor is reinmax at another temperature."""
    logits = torch.tensor([0.3, -1.0, 0.8, -0.2, 0.0], dtype=torch.float64)
    book = torch.tensor([-1.5, 0.2, 0.7, 2.0, -0.4], dtype=torch.float64)
    losses = 1.5 * book**2 - book
    q = torch.softmax(logits, -1)
    exact = q * (losses - q @ losses)

    def error(estimator, temperature=1.0):
        got = expectation(backend, logits, book, lambda y: 3.0 * y - 1.0, estimator, temperature)
        return (got - exact).abs().max().item()

    assert error("reinmax") < 1e-12
    assert error("straight_through") > 0.05
    assert error("reinmax", 0.5) > 0.02
    np.testing.assert_allclose(double(exact).sum(), 0.0, atol=1e-15)
