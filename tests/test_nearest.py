"""nearest_quantize: the nearest code, the lowest on a tie, and the straight-through gradient."""

import itertools

import numpy as np
import pytest
import torch
import truth
from cases import DTYPES, HALF, compute_dtype, double, make
from gradcases import leaf
from test_forward import CODES, ROWS, divisor, far_values

import fqvae_kernels


def check(z, codebook, backend):
    result = fqvae_kernels.nearest_quantize(z, codebook, backend=backend)
    assert result.quantized.shape == result.indices.shape == z.shape
    assert result.quantized.dtype == z.dtype and result.indices.dtype == torch.int64
    book = codebook.to(compute_dtype(z.dtype))
    rows = z.numel()
    index = result.indices.reshape(-1).numpy()
    assert ((index >= 0) & (index < book.shape[-1])).all()
    flat = double(z).reshape(-1)
    good = np.isfinite(flat)
    expected = truth.nearest(np.where(good, flat, 0.0), double(book))
    each = double(book).reshape(-1, book.shape[-1])[np.arange(rows) % (book.numel() // book.shape[-1])]
    # Distances after the clamp may round; the two codes must be equally near within that.
    clamped = np.clip(flat, each.min(axis=1), each.max(axis=1)) if rows else flat
    distance = np.abs(clamped[:, None] - each)
    row = np.arange(rows)
    gap = distance[row, index] - distance[row, expected]
    unit = torch.finfo(book.dtype).eps
    limit = unit * (np.abs(clamped) + np.abs(each).max(axis=1, initial=0.0))
    assert (gap[good] <= limit[good]).all(), "a code that is not the nearest"
    tied = gap == 0
    assert (index[good & tied] == expected[good & tied]).all(), "not the lowest of equal codes"
    picked = book.reshape(-1, book.shape[-1])[
        torch.from_numpy(row % (book.numel() // book.shape[-1])), torch.from_numpy(index)
    ].to(z.dtype)
    quantized = result.quantized.reshape(-1)
    good = torch.from_numpy(good)
    assert torch.equal(quantized[good], picked[good]), "quantized is not exactly codebook[index]"
    assert quantized[~good].isnan().all()
    return result


@pytest.mark.parametrize("codes", CODES)
def test_grid(backend, codes):
    dtype = itertools.cycle(DTYPES)
    for rows, per_latent in itertools.product(ROWS, (False, True)):
        case = make(rows, codes, dtype=next(dtype), latents=divisor(rows) if per_latent else 0)
        check(case.input, case.codebook, backend)


def test_65536_codes(backend):
    case = make(3, 65536)
    check(case.input, case.codebook, backend)


@pytest.mark.parametrize("dtype", DTYPES)
def test_far_z_takes_the_outermost_code(backend, dtype):
    z = far_values(dtype)
    for codes in (1, 5, 64, 67):
        book = make(1, codes, dtype=dtype).codebook
        result = check(z, book, backend)
        far = z.double().abs() > 100
        outermost = torch.where(z.double() > 0, int(book.argmax()), int(book.argmin()))
        assert torch.equal(result.indices[far], outermost[far])


def every_half(dtype: torch.dtype) -> torch.Tensor:
    """All finite values of a half precision."""
    values = torch.arange(2**16, dtype=torch.int32).to(torch.int16).view(dtype)
    return values[values.isfinite()]


@pytest.mark.parametrize("dtype", HALF)
def test_every_half_value_is_read_right(backend, dtype):
    """Denormal ones too: codes between the powers of four tell the exponents apart, close ones the rest."""
    z = every_half(dtype)
    exponents = 2.0 ** torch.arange(-26, 17, 2, dtype=torch.float32) * 1.5
    check(z, torch.cat([exponents, -exponents, torch.zeros(1)]), backend)
    check(z[::29], torch.linspace(-2.0, 2.0, 257), backend)


@pytest.mark.parametrize("dtype", HALF)
def test_codes_are_rounded_to_half_as_pytorch_rounds(backend, dtype):
    """Half-way between two values to the even one; denormal, tiny, overflowing codes."""
    halves = every_half(dtype).float()
    halves = halves[halves.abs() > 0].sort().values[::37]
    step = torch.finfo(dtype).eps / 2
    between = torch.cat([halves * (1 + step * x) for x in (0.5, 1.0, 1.0001, 0.9999, 1.5)])
    small = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps * torch.arange(-9, 10) / 4
    big = torch.finfo(dtype).max * torch.tensor([1.0, 1 + step / 2, 1 + step, -1 - step / 2])
    book = torch.cat([between, small, big]).unique()
    book = book[book.isfinite()]
    # Every code by itself under its own codebook: quantized is that code, rounded.
    z = torch.zeros(len(book), dtype=dtype)
    result = fqvae_kernels.nearest_quantize(z, book.unsqueeze(1), backend=backend)
    assert torch.equal(result.quantized, book.to(dtype))


def test_ties_take_the_lowest(backend):
    z = torch.tensor([0.0, 0.5, -0.5, 2.0, 100.0])
    book = torch.tensor([1.0, -1.0, 0.0, 1.0, 0.0, -1.0])
    result = fqvae_kernels.nearest_quantize(z, book, backend=backend)
    assert result.indices.tolist() == [2, 0, 1, 0, 0]
    for codes in (2, 16, 64, 67):
        equal = fqvae_kernels.nearest_quantize(torch.randn(40), torch.ones(codes), backend=backend)
        assert not equal.indices.any()


def test_ties_across_tiles(backend):
    """The same code at every pair of places: the first wins."""
    for codes in (17, 65, 130):
        for first, second in itertools.combinations(range(0, codes, 7), 2):
            book = torch.full((codes,), 5.0)
            book[first] = book[second] = 0.25
            result = fqvae_kernels.nearest_quantize(torch.full((3,), 0.3), book, backend=backend)
            assert result.indices.tolist() == [first] * 3


@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_and_infinity_stay_in_their_row(backend, dtype):
    case = make(40, 9, dtype=dtype)
    z = case.input.clone()
    z[0], z[17], z[39] = float("nan"), float("inf"), -float("inf")
    result = check(z, case.codebook, backend)
    assert result.quantized.isnan().nonzero().flatten().tolist() == [0, 17, 39]


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradient_is_straight_through(backend, dtype):
    case = make(24, 5, dtype=dtype, latents=4)
    z, book = leaf(case.input), leaf(case.codebook)
    result = fqvae_kernels.nearest_quantize(z, book, backend=backend)
    gradient = torch.randn(6, 4).to(dtype)
    result.quantized.backward(gradient)
    assert torch.equal(z.grad, gradient)
    assert book.grad is None or not book.grad.any()
    assert not result.indices.requires_grad


def test_strided_inputs(backend):
    case = make(24, 5, latents=4)
    plain = fqvae_kernels.nearest_quantize(case.input, case.codebook, backend=backend)
    turned = fqvae_kernels.nearest_quantize(
        case.input.t().contiguous().t(), case.codebook.t().contiguous().t(), backend=backend
    )
    assert torch.equal(plain.indices, turned.indices)
    expanded = fqvae_kernels.nearest_quantize(torch.tensor(0.4).expand(7), case.codebook[0], backend=backend)
    assert expanded.indices.unique().numel() == 1


def test_scalar_and_empty(backend):
    book = torch.tensor([0.0, 1.0])
    result = fqvae_kernels.nearest_quantize(torch.tensor(0.8), book, backend=backend)
    assert result.quantized.shape == () and result.indices.item() == 1 and result.quantized.item() == 1.0
    empty = fqvae_kernels.nearest_quantize(torch.empty(0, 3), torch.randn(3, 4), backend=backend)
    assert empty.quantized.shape == empty.indices.shape == (0, 3)


def test_unpacks(backend):
    quantized, indices = fqvae_kernels.nearest_quantize(torch.randn(3), torch.randn(4), backend=backend)
    assert quantized.dtype == torch.float32 and indices.dtype == torch.int64


def test_a_code_that_overflows_the_compute_dtype_passes_no_gradient(backend):
    """Cast to float32 it is infinite, which spoils its codebook; the gradient of z was 1."""
    z = torch.zeros(3, requires_grad=True)
    codebook = torch.tensor([0.0, 1e300], dtype=torch.float64)
    result = fqvae_kernels.nearest_quantize(z, codebook, backend=backend)
    assert result.quantized.isnan().all()
    assert torch.equal(torch.autograd.grad(result.quantized.sum(), z)[0], torch.zeros(3))
