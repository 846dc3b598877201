"""Only what is asked for, weights that are kept, and codebooks that are spoilt.

The CUDA backend's kernels, run on the CPU as PTX.
"""

import itertools

import pytest
import torch
from cases import DTYPES, check_forward, compute_dtype, make, output_gradients
from cudaptx import running_ptx
from gradcases import assert_gradients, library_gradients, library_pass
from nvcc import needs_nvcc

import fqvae_kernels
from fqvae_kernels._call import Call, Incoming, Kept, Needs, Wants
from fqvae_kernels._types import GumbelQuantized
from fqvae_kernels.backends import cuda
from fqvae_kernels.backends._cuda import geometry

pytestmark = needs_nvcc

ESTIMATORS = ("gumbel", "straight_through", "reinmax")
NAN, INF = float("nan"), float("inf")


def call_of(case, **fields):
    """The case as the backend takes it."""
    return Call(
        estimator=case.estimator,
        is_logits=case.is_logits,
        hard=case.hard,
        temperature=case.temperature,
        seed=case.seed,
        **fields,
    )


def nan_stats(case, call):
    """Stats that a kernel must not read where it has not written them."""
    shape = cuda.stats_rows(call), case.rows
    return torch.full(shape, NAN, dtype=compute_dtype(case.dtype))


@pytest.mark.parametrize("is_logits", [False, True])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_every_subset_of_the_outputs(estimator, is_logits):
    """What is wanted is right, and nothing else comes."""
    case = make(35, 21, is_logits=is_logits, temperature=0.6, estimator=estimator)
    for wants in itertools.starmap(Wants, itertools.product((False, True), repeat=4)):
        with running_ptx(race=True):
            outputs = cuda.forward(case.input, case.codebook, call_of(case, wants=wants), None)
        assert [output is not None for output in outputs] == list(wants)
        filled = [
            output if output is not None else instead
            for output, instead in zip(outputs, case.call("reference", return_weights=True), strict=True)
        ]
        check_forward(case, GumbelQuantized(*filled), weights=True)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_gradients_without_the_kl(estimator):
    """Where nobody wants it, its sums are not kept either: no gradient comes of it."""
    for is_logits, dtype in itertools.product((False, True), (torch.float32, torch.float64)):
        case = make(40, 9, is_logits=is_logits, dtype=dtype, temperature=0.5, estimator=estimator)
        a, _, v = output_gradients(case)
        needs = Needs(True, True, True)
        call = call_of(case, wants=Wants(kl=False, weights=True), needs=needs)
        stats = nan_stats(case, call)
        with running_ptx(race=True):
            quantized, indices, kl, weights = cuda.forward(case.input, case.codebook, call, stats)
            incoming = Incoming(a, None, v)
            got = cuda.backward(case.input, case.codebook, call, Kept(indices, stats), incoming, needs)
        assert kl is None
        check_forward(case, GumbelQuantized(quantized, indices, kl, weights), weights=True, kl=False)
        assert_gradients(case, got, case.true_gradients(a, None, v, indices))


def test_no_table_where_nobody_wants_the_kl(monkeypatch):
    monkeypatch.setattr(geometry, "tabulates", lambda *given: True)
    case = make(70, 12)
    for kl in (False, True):
        with running_ptx() as launcher:
            cuda.forward(case.input, case.codebook, call_of(case, wants=Wants(kl=kl)), None)
        assert ("posterior_float" in launcher.launched) == kl


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_codebook_that_wants_no_gradient(estimator):
    """The other gradients are the same bits."""
    for is_logits, dtype in itertools.product((False, True), (torch.float32, torch.float64)):
        case = make(40, 9, is_logits=is_logits, dtype=dtype, temperature=0.5, estimator=estimator)
        given = output_gradients(case)
        with running_ptx(race=True) as launcher:
            got = library_gradients(case, "cuda", *given, requires=(True, False, False))
            assert "reduce" not in launcher.launched
            whole = library_gradients(case, "cuda", *given, requires=(True, True, False))
        assert torch.equal(got[0], whole[0])


def kept_pass(case, given, needs, shown=None, **changes):
    """Gradients of a soft pass that keeps its weights. shown: weights to read in their place."""
    call = call_of(case, wants=Wants(weights=True), needs=needs, **changes)
    stats = nan_stats(case, call)
    _, indices, _, weights = cuda.forward(case.input, case.codebook, call, stats)
    kept = Kept(indices, stats, weights if shown is None else shown)
    return cuda.backward(case.input, case.codebook, call, kept, Incoming(*given), needs)


@pytest.mark.parametrize("is_logits", [False, True])
@pytest.mark.parametrize("codes", [5, 64, 150])
def test_kept_weights_are_read(codes, is_logits):
    """Of codes in one tile and several, with a gradient of the weights and without, at any temperature."""
    for dtype, temperature in itertools.product((torch.float32, torch.float64), (0.02, 0.7)):
        case = make(40, codes, is_logits=is_logits, latents=2, dtype=dtype, temperature=temperature)
        for which in ("ahv", "a", "hv"):
            given = [
                g if name in which else None for name, g in zip("ahv", output_gradients(case), strict=True)
            ]
            with running_ptx(race=True, order=2, seed=codes):
                got = kept_pass(case, given, Needs(True, True, False))
            true = case.true_gradients(*given)
            filled = (*got[:2], torch.tensor(true.temperature, dtype=torch.float64))
            assert_gradients(case, filled, true)


def test_where_kept_weights_are_not_enough():
    """The temperature's gradient needs the noise, and kernels without weights' gradients draw it anyway."""
    case = make(40, 9, temperature=0.5)
    a, h, v = output_gradients(case)
    for given, needs, read in (
        ((a, h, v), Needs(True, True, False), True),
        ((a, h, v), Needs(True, True, True), False),
        ((a, h, None), Needs(True, True, False), False),
    ):
        with running_ptx():
            expected = kept_pass(case, given, needs)
            got = kept_pass(case, given, needs, shown=torch.zeros(40, 9))
        same = all(torch.equal(x, y) for x, y in zip(got, expected, strict=True) if x is not None)
        assert same != read


def test_kept_weights_that_are_not_aligned():
    case = make(9, 64, is_logits=True)
    given = output_gradients(case)
    needs = Needs(True, True, False)
    weights = case.call("reference", return_weights=True).weights
    shifted = torch.empty(9 * 64 + 1)[1:].view(9, 64).copy_(weights)
    assert shifted.data_ptr() % 16 != 0
    with running_ptx(race=True):
        got = kept_pass(case, given, needs, shown=shifted)
        expected = kept_pass(case, given, needs, shown=weights)
    assert all(torch.equal(x, y) for x, y in zip(got[:2], expected[:2], strict=True))


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
@pytest.mark.parametrize("dtype", DTYPES)
def test_spoilt_codebooks(dtype, bad):
    """One of three codebooks has a bad code, seen alone or beside finite ones: its rows give nothing."""
    for estimator, is_logits, temperature in itertools.product(ESTIMATORS, (False, True), (0.05, 0.7)):
        case = make(36, 70, latents=3, dtype=dtype, is_logits=is_logits, temperature=temperature)
        book = case.codebook.clone()
        book[1, (3, 69)[is_logits]] = bad
        case = case.but(codebook=book, estimator=estimator)
        given = output_gradients(case)
        with running_ptx(race=True):
            result, got = library_pass(case, "cuda", *given)
        check_forward(case, result, weights=True)
        assert result.kl[:, 1].isnan().all() and result.kl[:, ::2].isfinite().all()
        indices = None if estimator == "gumbel" else result.indices
        assert_gradients(case, got, case.true_gradients(*given, indices), bound=case.tolerance)
        assert not got[0][:, 1].any() and not got[1][1].any()


def test_spoilt_codebooks_of_other_kernels(monkeypatch):
    """The table, the slopes, the nearest code, and codebooks in parts."""
    z = torch.randn(40, generator=torch.Generator().manual_seed(1))
    for bad, place in ((NAN, 0), (INF, 2050), (-INF, 7)):
        book = torch.linspace(-2, 2, 2051)
        book[place] = bad
        for codebook in (book, torch.full((5,), bad), book[place : place + 1]):
            with running_ptx(race=True):
                nearest = fqvae_kernels.nearest_quantize(z, codebook, backend="cuda")
                leaf = z.clone().requires_grad_()
                slopes = fqvae_kernels.gumbel_quantize(leaf, codebook, seed=1, backend="cuda")
                (gradient,) = torch.autograd.grad((slopes.quantized.sum(), slopes.kl.sum()), leaf)
                with monkeypatch.context() as patch:
                    patch.setattr(geometry, "tabulates", lambda *given: True)
                    table = fqvae_kernels.gumbel_quantize(z[:4], codebook[:64], seed=1, backend="cuda")
            assert nearest.quantized.isnan().all() and not gradient.any()
            assert slopes.quantized.isnan().all() and slopes.kl.isnan().all()
            if not codebook[:64].isfinite().all():
                assert table.quantized.isnan().all() and table.kl.isnan().all()
            for indices in (nearest.indices, slopes.indices, table.indices):
                assert ((indices >= 0) & (indices < len(codebook))).all()


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_unusable_rows_beside_the_largest_codes(estimator):
    """Differences of codes overflow there: still no gradient, and none that is NaN."""
    for dtype in (torch.float32, torch.float64):
        most = torch.finfo(dtype).max
        book = torch.tensor([most, -most], dtype=dtype)
        logits = torch.tensor([[NAN, 0.0], [0.0, INF], [-INF, -INF]], dtype=dtype)
        for case in (
            make(3, 2, is_logits=True, dtype=dtype, estimator=estimator).but(input=logits),
            make(3, 2, dtype=dtype, estimator=estimator).but(input=logits[:, 1] * NAN),
        ):
            case = case.but(codebook=book)
            with running_ptx(race=True):
                for given in (output_gradients(case), output_gradients(case, weights=False)):
                    result, got = library_pass(case, "cuda", *given)
                    assert result.quantized.isnan().all()
                    assert not any(gradient.any() for gradient in got)
