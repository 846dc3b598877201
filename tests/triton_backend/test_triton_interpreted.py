"""The public functions with backend "triton" under Triton's interpreter, against the truth.

The interpreter computes every logarithm and exponential exactly: what the compiled code does is for
test_triton_compiled.py.
"""

import itertools
import random

import numpy as np
import pytest
import torch
import truth
from cases import DTYPES, check_forward, compute_dtype, double, make, output_gradients
from gradcases import assert_gradients, check_temperatures_near_zero, library_gradients
from test_backward import SUBSETS, chosen
from test_forward import TEMPERATURES, cluster_case, divisor, far_case
from test_nearest import check as check_nearest

import fqvae_kernels
from fqvae_kernels import backends
from fqvae_kernels._call import Call, Incoming, Kept, Needs, Wants
from fqvae_kernels.backends._triton.launch import backward_tile, forward_tile

CODES = (1, 2, 3, 4, 5, 15, 16, 17, 63, 64, 65, 130, 257)


def rows_at_edges(codes: int) -> list[int]:
    """Numbers of rows about the tiles of both passes; the tile of many rows is for `few_rows_are_many`."""
    sizes = {forward_tile(10, codes).rows, backward_tile(codes).rows}
    return sorted({1, *(size + d for size in sizes for d in (-1, 0, 1))})


def mixed_cases(codes: int, count: int):
    """Cases of every mode, drawn: dtype, hard, per latent, logits, weights, outputs in the loss."""
    draw = random.Random(codes)
    edges = rows_at_edges(codes)
    for i in range(count):
        rows = edges[(codes + i) % len(edges)]
        hard, per_latent, is_logits = (draw.random() < 0.5 for _ in range(3))
        case = make(
            rows,
            codes,
            dtype=DTYPES[(codes + i) % 4],
            latents=divisor(rows) if per_latent else 0,
            is_logits=is_logits,
            temperature=draw.choice(TEMPERATURES),
            hard=hard,
            seed=2**63 + codes,
            row_offset=2**32 - rows // 2,
        )
        yield case, draw.choice(SUBSETS)


def check_both(case, backend, subset, weights=True):
    """Forward and gradients against the truth."""
    check_forward(case, case.call(backend, return_weights=weights), weights=weights)
    given = chosen(output_gradients(case), subset)
    assert_gradients(case, library_gradients(case, backend, *given), case.true_gradients(*given))


def check_numbers_on_the_device(dtype):
    """A seed and a temperature, of every dtype, that the kernels read give the same bits as their values."""
    case = make(9, 18, dtype=dtype)
    gradients = [gradient.clone() for gradient in output_gradients(case)]
    backend = backends.kernel("triton")

    def results(seed, temperature):
        needs = Needs(True, True, True)
        call = Call(temperature=temperature, seed=seed, wants=Wants(weights=True), needs=needs)
        codebook = case.codebook.to(compute_dtype(dtype))
        stats = codebook.new_zeros(backend.stats_rows(call), 9)
        outputs = backend.forward(case.input, codebook, call, stats)
        kept = Kept(outputs[1], stats)
        given = (case.input, codebook, call, kept, Incoming(*gradients), needs)
        return *outputs, *backend.backward(*given)

    for seed in (5, 2**63 + 2**40 + 1):
        bits = torch.tensor(seed - 2**64 if seed >= 2**63 else seed)
        for temperature_dtype in DTYPES:
            temperature = torch.tensor(0.7, dtype=temperature_dtype)
            expected = results(seed, temperature.item())
            assert all(map(torch.equal, results(bits, temperature), expected))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_numbers_on_the_device(interpreted, dtype):
    check_numbers_on_the_device(dtype)


@pytest.mark.parametrize("codes", CODES)
def test_grid(interpreted, codes):
    for case, subset in mixed_cases(codes, 1 if codes > 100 else 2):
        check_both(case, interpreted, subset, weights=subset[2])


@pytest.mark.parametrize("is_logits", [False, True])
@pytest.mark.parametrize("latents", [0, 3])
def test_many_rows(interpreted, few_rows_are_many, is_logits, latents):
    """One lane a row and two rows a lane: what the launch table takes when rows are plenty."""
    assert forward_tile(300, 9) == (256, 1)
    case = make(300, 9, is_logits=is_logits, latents=latents, temperature=0.3)
    check_both(case, interpreted, (True, True, True))


@pytest.mark.parametrize("requires", SUBSETS)
def test_every_subset_of_requires_grad(interpreted, requires):
    """What is not required gets no gradient; what is gets the one that it gets when all are."""
    case = make(9, 5, latents=3, temperature=0.6)
    given = output_gradients(case)
    every = library_gradients(case, interpreted, *given)
    for got, whole, required in zip(
        library_gradients(case, interpreted, *given, requires=requires), every, requires, strict=True
    ):
        assert torch.equal(got, whole) if required else got is None


def test_programs_share_the_rows(interpreted, monkeypatch):
    """More rows than the most programs take at once: each goes over several shares."""
    from fqvae_kernels.backends._triton import launch

    monkeypatch.setattr(launch, "MOST_PROGRAMS", 3)
    case = make(70, 17, temperature=0.5)
    assert launch.backward_programs(70, 1, 17, backward_tile(17)) == 3 < 70 / backward_tile(17).rows
    check_both(case, interpreted, (True, True, True), weights=False)


@pytest.mark.parametrize("dtype", DTYPES)
def test_far_z(interpreted, dtype):
    for codes, temperature, hard in ((5, 0.01, False), (67, 0.7, True)):
        case = far_case(dtype, codes, temperature=temperature, hard=hard)
        check_both(case, interpreted, (True, True, True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_far_z_before_a_cluster_of_codes(interpreted, dtype):
    for falling, temperature in ((False, 0.01), (True, 0.7), (True, 0.01)):
        case = cluster_case(dtype, falling, temperature=temperature)
        check_both(case, interpreted, (True, True, True))


@pytest.mark.parametrize("temperature", [0.01, 100.0])
def test_wide_codebooks(interpreted, temperature):
    case = make(30, 17, scale=1e4, temperature=temperature)
    result = case.call(interpreted, return_weights=True)
    check_forward(case, result, weights=True, quantized_scale=case.codebook.abs().max().item())
    given = output_gradients(case)
    assert_gradients(case, library_gradients(case, interpreted, *given), case.true_gradients(*given))


def test_temperatures_near_zero(interpreted):
    check_temperatures_near_zero(interpreted)


def test_huge_codes(interpreted):
    """Codes whose squared distance overflows: all the weight lies on the nearest. K is no multiple of 4."""
    book = torch.tensor([-1e38, -1e30, -1.0, 1.0, 1e30, 1e38])
    z = torch.tensor([-1e38, -1e30, 0.9, -0.9, 0.0, 1e30, 2e38])
    check_both(make(7, 6).but(input=z, codebook=book), interpreted, (True, True, True))


@pytest.mark.parametrize("is_logits", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_bad_rows(interpreted, dtype, is_logits):
    """NaN and infinity stay in their row and pass no gradient."""
    case = make(20, 6, dtype=dtype, is_logits=is_logits, temperature=0.5)
    input = case.input.clone()
    for row, value in zip((2, 16, 19), (float("nan"), float("inf"), -float("inf")), strict=True):
        input[(row, 0) if is_logits and row != 19 else row] = value
    case = case.but(input=input)
    check_forward(case, case.call(interpreted, return_weights=True), weights=True)
    given = output_gradients(case)
    for gradient in given:
        gradient[[2, 16, 19]] = float("nan")
    got = library_gradients(case, interpreted, *given)
    assert (got[0][[2, 16, 19]] == 0).all()
    assert_gradients(case, got, case.true_gradients(*given))


@pytest.mark.parametrize("dtype", DTYPES)
def test_masked_and_extreme_logits(interpreted, dtype):
    big = torch.finfo(dtype).max
    low = -float("inf")
    rows = [
        [big, -big, 0, 1, 2],
        [-big] * 5,
        [big] * 5,
        [low, -big / 2, big / 4, big / 4, 0],
        [0, 1, low, 2, 3],
    ]
    case = make(5, 5, dtype=dtype, is_logits=True, temperature=0.3)
    case = case.but(input=torch.tensor(rows, dtype=torch.float64).to(dtype))
    check_both(case, interpreted, (True, True, True))


@pytest.mark.parametrize("codes", CODES)
def test_nearest(interpreted, codes):
    rows = rows_at_edges(codes)[codes % 3]
    for latents in (0, divisor(rows)):
        case = make(rows, codes, dtype=DTYPES[codes % 4], latents=latents)
        check_nearest(case.input, case.codebook, interpreted)
        far = far_case(DTYPES[codes % 4], codes)
        check_nearest(far.input, far.codebook, interpreted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_noise(interpreted, dtype):
    for rows, codes, offset in ((1, 1, 0), (9, 67, 2**32 - 2), (130, 5, 2**63 - 140)):
        for seed in (5, torch.tensor(-3)):
            got = backends.get("triton").gumbel_noise(seed, rows, codes, offset, torch.device("cpu"), dtype)
            expected = truth.gumbel(int(seed) % 2**64, rows, codes, offset)
            bound = 2e-6 if dtype == torch.float32 else 1e-14
            assert (np.abs(double(got) - expected) <= bound * np.maximum(1.0, np.abs(expected))).all()


def test_no_rows(interpreted):
    for is_logits, latents in itertools.product((False, True), (0, 3)):
        case = make(0, 5, is_logits=is_logits, latents=latents)
        check_both(case, interpreted, (True, True, True))
    result = fqvae_kernels.nearest_quantize(torch.empty(0), torch.randn(5), backend=interpreted)
    assert result.quantized.shape == (0,)


def test_agrees_with_cpu(interpreted, cpu_backend):
    for case in (make(30, 40, temperature=0.2), make(9, 300, latents=3), make(20, 20, is_logits=True)):
        ours = case.call(interpreted, return_weights=True)
        theirs = case.call(cpu_backend, return_weights=True)
        assert torch.equal(ours.indices, theirs.indices)
        for name in ("quantized", "kl", "weights"):
            torch.testing.assert_close(getattr(ours, name), getattr(theirs, name), atol=2e-5, rtol=2e-5)


def test_cpu_tensors_still_take_the_cpu_backend(interpreted, cpu_backend):
    """backend=None does not fall for the interpreter."""
    assert fqvae_kernels.available_backends()[-1] == "triton"
    assert backends.choose(None, torch.device("cpu")).name == cpu_backend


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("codes", [1, 5, 64, 130])
def test_gumbel_softmax(interpreted, hard, codes):
    generator = torch.Generator().manual_seed(0)
    logits, incoming = (torch.randn(19, codes, generator=generator).requires_grad_() for _ in range(2))
    found = []
    for name in (interpreted, "reference"):
        weights = fqvae_kernels.gumbel_softmax(logits, 0.6, hard, seed=3, row_offset=5, backend=name)
        found.append((weights, *torch.autograd.grad(weights, logits, incoming.detach())))
    torch.testing.assert_close(*found, rtol=2e-5, atol=2e-5)
