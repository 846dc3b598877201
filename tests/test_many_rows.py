"""Many rows under one codebook, where a backend may share work between rows: the truth must not notice."""

import itertools

import pytest
import torch
from cases import assert_same, check_forward, compute_dtype, generator, make, output_gradients
from gradcases import assert_gradients, library_gradients


def rows_for(backend: str) -> int:
    """Enough for any sharing to pay; the reference, which is slow and shares nothing, gets fewer."""
    return 20_011 if backend == "cpu" else 2_003


def codebooks(codes: int) -> dict[str, torch.Tensor]:
    """Codebooks of several characters, ``(codes,)``."""
    normal = torch.randn(codes, generator=generator(codes))
    twins = normal.clone()
    twins[codes // 2 :] = normal[: codes - codes // 2]
    return {
        "normal": normal,
        "even": torch.linspace(-1.5, 2.0, codes),
        "narrow": normal * 0.01,
        "wide": normal * 4.0,
        "off centre": normal + 20.0,
        "in two groups": torch.where(torch.arange(codes) % 2 == 0, normal - 3.5, normal + 3.5),
        "twins": twins,
        "equal": torch.full((codes,), 0.4),
    }


def rows_around(codebook: torch.Tensor, rows: int, dtype: torch.dtype) -> torch.Tensor:
    """z over the codebook and some way beyond, with far ones and bad ones here and there."""
    random = generator(5)
    low, high = codebook.min().item() - 4.0, codebook.max().item() + 4.0
    z = torch.rand(rows, generator=random, dtype=torch.float64) * (high - low) + low
    z[::7] = codebook.double()[torch.randint(len(codebook), z[::7].shape, generator=random)]
    if low + 8.0 < high:  # far from equal codes, the rounding of nothing is multiplied by z
        z[5::1000], z[6::1000] = 1e4, -3e4
    z[7::1900], z[8::1900] = float("nan"), float("inf")
    return z.to(dtype)


def case_of(backend, codebook, dtype=torch.float32, **options):
    case = make(1, len(codebook), dtype=dtype, **options)
    book = codebook.to(compute_dtype(dtype))
    return case.but(input=rows_around(book, rows_for(backend), dtype), codebook=book)


NAMES = list(codebooks(3))


@pytest.mark.parametrize("name", NAMES)
def test_forward(backend, name):
    for codes, hard in ((3, False), (16, True), (67, False)):
        case = case_of(backend, codebooks(codes)[name], temperature=0.7, hard=hard, note=name)
        scale = max(1.0, case.codebook.abs().max().item())
        check_forward(case, case.call(backend), weights=False, quantized_scale=scale)


@pytest.mark.parametrize("name", NAMES)
def test_backward(backend, name):
    """kl may go its own way, unless weights are in the loss; so they are not. Alone and beside quantized."""
    for codes, hard in ((3, False), (16, True), (67, False)):
        case = case_of(backend, codebooks(codes)[name], temperature=0.7, hard=hard, note=name)
        a, h, _ = output_gradients(case)
        for given, learned in itertools.product(((a, h), (None, h)), (False, True)):
            *got, temperature = library_gradients(case, backend, *given, requires=(True, True, learned))
            true = case.true_gradients(*given)
            if not learned:
                temperature = torch.tensor(true.temperature, dtype=torch.float64)
            assert_gradients(case, (*got, temperature), true)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes(backend, dtype):
    for codes, temperature in ((5, 0.2), (64, 2.0)):
        case = case_of(backend, codebooks(codes)["normal"], dtype, temperature=temperature)
        check_forward(case, case.call(backend), weights=False)
        given = output_gradients(case, weights=False)
        assert_gradients(case, library_gradients(case, backend, *given), case.true_gradients(*given))


def test_few_rows_of_many_are_the_same(backend):
    """What a row samples does not depend on how many rows there are; its kl only within rounding."""
    for codes, hard in itertools.product((16, 65), (False, True)):
        # On a GPU the rows decide how many threads share one, and so the order of its sums.
        like = "reference" if backend in ("cuda", "triton") and not hard else backend
        whole = case_of(backend, codebooks(codes)["normal"], temperature=0.4, hard=hard)
        result = whole.call(backend)
        for begin, end in ((0, 40), (777, 778), (1_000, 1_900)):
            shard = whole.but(input=whole.input[begin:end], row_offset=begin)
            part = shard.call(backend)
            here = slice(begin, end)
            assert torch.equal(part.indices, result.indices[here])
            usable = shard.input.isfinite()
            assert_same(part.quantized[usable], result.quantized[here][usable], like, (codes, begin))
            torch.testing.assert_close(part.kl, result.kl[here], atol=2e-6, rtol=2e-6, equal_nan=True)
