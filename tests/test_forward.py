"""The forward pass against the float64 truth, over a grid of shapes, dtypes, temperatures and modes."""

import itertools
import random

import numpy as np
import pytest
import torch
from cases import DTYPES, assert_same, beside_close_codes, check_forward, double, make

import fqvae_kernels

ROWS = (0, 1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 100)
CODES = (1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 67, 127, 128, 129, 130, 257, 1000)
TEMPERATURES = (0.01, 0.05, 0.14, 0.2, 0.7, 1.0, 3.0, 100.0)


def divisor(rows: int) -> int:
    """A number of latents for so many rows."""
    return next((d for d in (3, 2, 5, 7, 11, 31, 1) if rows % d == 0), 1)


def modes(codes: int):
    """Every (dtype, hard, per latent, logits, weights), with a temperature; endless."""
    every = list(itertools.product(DTYPES, (False, True), (False, True), (False, True), (False, True)))
    draw = random.Random(codes)
    draw.shuffle(every)
    return ((mode, draw.choice(TEMPERATURES)) for mode in itertools.cycle(every))


@pytest.mark.parametrize("codes", CODES)
def test_grid(backend, codes):
    """Every number of rows, five modes each: each mode appears at each K."""
    mode = modes(codes)
    for rows in ROWS:
        for _ in range(5):
            (dtype, hard, per_latent, is_logits, weights), temperature = next(mode)
            case = make(
                rows,
                codes,
                dtype=dtype,
                latents=divisor(rows) if per_latent else 0,
                is_logits=is_logits,
                temperature=temperature,
                hard=hard,
                seed=2**33 + codes,
                row_offset=rows,
            )
            check_forward(case, case.call(backend, return_weights=weights), weights=weights)


@pytest.mark.parametrize("is_logits", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_65536_codes(backend, dtype, is_logits):
    case = make(3, 65536, dtype=dtype, is_logits=is_logits, temperature=0.5)
    check_forward(case, case.call(backend, return_weights=True), weights=True)
    hard = case.but(hard=True)
    check_forward(hard, hard.call(backend), weights=False)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_temperatures_on_many_rows(backend, temperature):
    for dtype in DTYPES:
        case = make(400, 64, dtype=dtype, temperature=temperature, latents=4)
        check_forward(case, case.call(backend, return_weights=True), weights=True)


def far_values(dtype):
    biggest = torch.finfo(dtype).max
    values = [0.0, 1e-3, 0.5, 10.0, 1e3, 3e4, 1e6, 1e10, 1e19, 1e30, 3e38, 1e200, biggest]
    kept = [v for v in values if v <= biggest]
    return torch.tensor(kept + [-v for v in kept], dtype=torch.float64).to(dtype)


def far_case(dtype, codes, **options):
    values = far_values(dtype)
    case = make(values.numel(), codes, dtype=dtype, **options)
    return case.but(input=values, note="far")


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_far_z(backend, dtype, hard):
    for codes, temperature in itertools.product((1, 2, 5, 64, 67), (0.01, 0.7, 100.0)):
        case = far_case(dtype, codes, temperature=temperature, hard=hard)
        result = case.call(backend, return_weights=True)
        for output in (result.quantized, result.kl, result.weights):
            assert torch.isfinite(output).all(), case
        check_forward(case, result, weights=True)


def cluster_case(dtype, falling, **options):
    """z in a gap so wide that its distances to a cluster of codes round to the same number."""
    wide = 1e6 if dtype == torch.float32 else 1e13
    near = torch.tensor([0.0, 1e-5, 3e-3, 0.01, 0.011, 0.5, 1.0], dtype=dtype)
    book = torch.cat([near, torch.tensor([-wide, wide], dtype=dtype)]).sort(descending=falling).values
    share = torch.tensor([1e-5, 1e-3, 0.01, 0.1, 0.3, 0.49], dtype=dtype)
    case = make(12, len(book), dtype=dtype, **options)
    return case.but(input=torch.cat([share, -share]) * wide, codebook=book, note="cluster")


@pytest.mark.parametrize("falling", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_far_z_before_a_cluster_of_codes(backend, dtype, falling):
    for temperature, hard in itertools.product((0.01, 0.7, 100.0), (False, True)):
        case = cluster_case(dtype, falling, temperature=temperature, hard=hard)
        result = case.call(backend, return_weights=True)
        for output in (result.quantized, result.kl, result.weights):
            assert torch.isfinite(output).all(), case
        check_forward(case, result, weights=True)


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_far_z_whose_nearest_code_comes_late(backend, dtype, descending):
    """The codes before it are all so far that rounding their costs alone could overflow a weight."""
    for temperature in (0.01, 0.7):
        case = far_case(dtype, 200, temperature=temperature)
        case = case.but(codebook=case.codebook.sort(descending=descending).values)
        result = case.call(backend, return_weights=True)
        assert torch.isfinite(result.quantized).all(), case
        check_forward(case, result, weights=True)


def test_far_z_beside_close_codes(backend):
    """Two codes so close that far z still doubts between them: their difference must keep its digits."""
    for case in beside_close_codes(100):
        check_forward(case, case.call(backend, return_weights=True), weights=True)


@pytest.mark.parametrize("scale", [1e2, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_wide_codebooks(backend, dtype, scale):
    """Codes far apart: most weights are zero or denormal. quantized's bound follows the codes it adds up."""
    for codes, temperature in itertools.product((3, 17, 64, 130), TEMPERATURES):
        case = make(60, codes, dtype=dtype, scale=scale, temperature=temperature)
        result = case.call(backend, return_weights=True)
        assert torch.isfinite(result.weights).all()
        check_forward(case, result, weights=True, quantized_scale=case.codebook.abs().max().item())


@pytest.mark.parametrize("offset", [100.0, -100.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_codebooks_with_an_offset(backend, dtype, offset):
    """Codes around 100: the differences of the codes matter, not their size."""
    for codes, temperature in itertools.product((2, 16, 67), (0.05, 0.7, 3.0)):
        case = make(100, codes, dtype=dtype, offset=offset, temperature=temperature)
        check_forward(case, case.call(backend, return_weights=True), weights=True)


@pytest.mark.parametrize("dtype", DTYPES)
def test_equal_codes(backend, dtype):
    """All codes equal: the posterior is uniform whatever z is, and quantized is that code."""
    for codes, value in itertools.product((1, 2, 9, 64, 67), (0.0, -1.25, 100.0)):
        case = far_case(dtype, codes, temperature=0.3)
        case = case.but(codebook=torch.full_like(case.codebook, value))
        result = case.call(backend, return_weights=True)
        check_forward(case, result, weights=True)
        assert (result.kl.abs() <= 1e-5).all()


@pytest.mark.parametrize("hard", [False, True])
def test_duplicate_codes(backend, hard):
    for codes in (2, 8, 33, 64, 130):
        case = make(100, codes, temperature=0.2, hard=hard)
        book = case.codebook.clone()
        book[codes // 2 :] = book[: codes - codes // 2].clone()
        case = case.but(codebook=book)
        check_forward(case, case.call(backend, return_weights=True), weights=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_denormal_z_and_codes(backend, dtype):
    tiny = torch.finfo(dtype).smallest_normal / 8
    case = make(20, 17, dtype=dtype, temperature=0.5)
    case = case.but(input=torch.full((20,), tiny, dtype=dtype))
    check_forward(case, case.call(backend, return_weights=True), weights=True)
    case = case.but(codebook=(case.codebook.double() * tiny).to(case.codebook.dtype))
    check_forward(case, case.call(backend, return_weights=True), weights=True)


def test_huge_codes(backend):
    """Codes whose squared distance overflows float32: all the weight lies on the nearest."""
    book = torch.tensor([-1e38, -1e30, -1.0, 1.0, 1e30, 1e38])
    z = torch.tensor([-1e38, -1e30, 0.9, -0.9, 0.0, 1e30, 2e38])
    case = make(7, 6).but(input=z, codebook=book)
    result = case.call(backend, return_weights=True)
    assert torch.isfinite(result.weights).all() and torch.isfinite(result.kl).all()
    check_forward(case, result, weights=True)


def bad_rows(dtype, rows=40):
    case = make(rows, 13, dtype=dtype, temperature=0.5)
    z = case.input.clone()
    z[3], z[16], z[17], z[rows - 1] = float("nan"), float("inf"), -float("inf"), float("nan")
    return case.but(input=z), [3, 16, 17, rows - 1]


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_and_infinity_stay_in_their_row(backend, dtype, hard):
    clean = make(40, 13, dtype=dtype, temperature=0.5, hard=hard)
    case, bad = bad_rows(dtype)
    case = case.but(hard=hard)
    result = case.call(backend, return_weights=True)
    check_forward(case, result, weights=True)
    whole = clean.call(backend, return_weights=True)
    good = torch.ones(40, dtype=torch.bool)
    good[bad] = False
    for name in ("quantized", "kl", "weights"):
        assert getattr(result, name)[bad].isnan().all(), name
        assert_same(getattr(result, name)[good], getattr(whole, name)[good], backend, name)
    assert torch.equal(result.indices[good], whole.indices[good])


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_bad_logits_stay_in_their_row(backend, dtype, hard):
    nan, inf = float("nan"), float("inf")
    for codes in (2, 5, 64, 67):
        case = make(36, codes, dtype=dtype, is_logits=True, temperature=0.5, hard=hard)
        logits = case.input.clone()
        logits[2, 0], logits[5, codes - 1], logits[9], logits[17, 1] = nan, inf, -inf, nan
        logits[20, 0], logits[20, 1] = inf, -inf
        logits[33, 0], logits[33, 1] = nan, -inf
        case = case.but(input=logits)
        result = case.call(backend, return_weights=True)
        check_forward(case, result, weights=True)
        assert result.kl.isnan().nonzero().flatten().tolist() == [2, 5, 9, 17, 20, 33]


@pytest.mark.parametrize("dtype", DTYPES)
def test_masked_codes(backend, dtype):
    """-inf beside finite logits: that code weighs exactly zero and is never chosen."""
    for codes in (2, 7, 64, 67):
        for position in {0, codes // 2, codes - 1}:
            case = make(50, codes, dtype=dtype, is_logits=True, temperature=0.7)
            logits = case.input.clone()
            logits[:, position] = -float("inf")
            case = case.but(input=logits)
            result = case.call(backend, return_weights=True)
            check_forward(case, result, weights=True)
            assert (result.weights[:, position] == 0).all() and not (result.indices == position).any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_extreme_logits(backend, dtype):
    """Finite logits at the ends of the range: their difference overflows, and nothing else does."""
    big = torch.finfo(dtype).max
    case = make(4, 5, dtype=dtype, is_logits=True, temperature=0.3)
    rows = [[big, -big, 0, 1, 2], [-big] * 5, [big] * 5, [-big, -big / 2, big / 4, big / 4, 0]]
    case = case.but(input=torch.tensor(rows, dtype=torch.float64).to(dtype))
    result = case.call(backend, return_weights=True)
    assert torch.isfinite(result.kl).all() and torch.isfinite(result.weights).all()
    check_forward(case, result, weights=True)


@pytest.mark.parametrize("codes", [1, 5, 64])
def test_rows_do_not_depend_on_their_neighbours(backend, codes):
    """A row alone gives what it gives among others, wherever it stands."""
    case = make(100, codes, temperature=0.4)
    whole = case.call(backend, return_weights=True)
    for row in (0, 1, 15, 16, 50, 96, 99):
        one = case.but(input=case.input[row : row + 1], row_offset=row).call(backend, return_weights=True)
        for name in ("quantized", "indices", "kl", "weights"):
            assert_same(getattr(one, name)[0], getattr(whole, name)[row], backend, (name, row))


def test_logits_of_distances_give_the_same_as_z(backend):
    """gumbel_quantize is gumbel_quantize_logits on -(z - m)^2."""
    case = make(100, 20, dtype=torch.float64, temperature=0.4)
    logits = -((case.input[:, None] - case.codebook) ** 2)
    z = case.call(backend, return_weights=True)
    given = case.but(input=logits, is_logits=True).call(backend, return_weights=True)
    assert torch.equal(z.indices, given.indices)
    for name in ("quantized", "kl", "weights"):
        np.testing.assert_allclose(double(getattr(z, name)), double(getattr(given, name)), atol=1e-12)


def test_a_float64_codebook_serves_float32_z(backend):
    """The arithmetic follows z: the codebook is cast."""
    case = make(50, 9)
    result = case.call(backend, codebook=case.codebook.double())
    same = case.call(backend)
    assert torch.equal(result.quantized, same.quantized) and torch.equal(result.kl, same.kl)


def test_half_codebook_serves_float32_z(backend):
    case = make(50, 9)
    case = case.but(codebook=case.codebook.half())
    check_forward(case, case.call(backend, return_weights=True), weights=True)


def test_defaults(backend):
    """temperature 1, soft, row_offset 0, no weights."""
    case = make(30, 8, temperature=1.0, seed=3)
    result = fqvae_kernels.gumbel_quantize(case.input, case.codebook, seed=3, backend=backend)
    check_forward(case, result, weights=False)
