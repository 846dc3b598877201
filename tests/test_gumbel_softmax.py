"""`gumbel_softmax` against the float64 formula and PyTorch's function, with equal noise; and its laws."""

import itertools
import math

import numpy as np
import pytest
import torch
import truth
from scipy import stats

import fqvae_kernels
from fqvae_kernels import gumbel_softmax

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")
F = torch.nn.functional
THEIRS = F.gumbel_softmax
NAN, INF = math.nan, math.inf


def noise(logits, dim, seed, row_offset=0):
    """The truth's, of logits' shape, rows along dim."""
    moved = logits.movedim(dim, -1)
    rows = truth.gumbel(seed, moved[..., 0].numel(), moved.shape[-1], row_offset)
    return torch.from_numpy(rows).reshape(moved.shape).movedim(-1, dim)


def expected(logits, tau=1.0, hard=False, dim=-1, seed=0, row_offset=0):
    """PyTorch's function, its noise replaced by the truth's, in float64."""
    scores = (logits.double() + noise(logits, dim, seed, row_offset)) / tau
    soft = scores.softmax(dim)
    if not hard:
        return soft
    one_hot = torch.zeros_like(soft).scatter_(dim, scores.argmax(dim, keepdim=True), 1)
    return one_hot + (soft - soft.detach())


def logits_of(shape, dtype=torch.float32, seed=0, spread=2.0):
    generator = torch.Generator().manual_seed(seed)
    return (spread * torch.randn(shape, generator=generator, dtype=torch.float64)).to(dtype)


BOUNDS = {torch.float64: 1e-12, torch.float32: 2e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}
SHAPES = [
    ((), 0),
    ((1,), 0),
    ((5,), -1),
    ((7, 64), -1),
    ((7, 64), 0),
    ((2, 3, 130), 1),
    ((2, 5, 3, 4), 1),
    ((3, 0), 0),
]


@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize(("shape", "dim"), SHAPES)
def test_values_and_gradients(backend, dtype, hard, shape, dim):
    logits = logits_of(shape, dtype).requires_grad_()
    tau = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    found = gumbel_softmax(logits, tau, hard, dim, seed=2**40 + 3, row_offset=11, backend=backend)
    assert found.shape == logits.shape and found.dtype == dtype
    wide, tau_too = logits.detach().double().requires_grad_(), tau.detach().clone().requires_grad_()
    rows = wide.unsqueeze(0) if wide.dim() == 0 else wide
    right = expected(rows, tau_too, hard, dim, 2**40 + 3, 11).reshape(shape)
    bound = BOUNDS[dtype]
    torch.testing.assert_close(found.double(), right, rtol=bound, atol=bound)
    if hard:
        assert set(found.detach().unique().tolist()) <= {0.0, 1.0}
    incoming = logits_of(shape, dtype, seed=1, spread=1.0)
    ours = torch.autograd.grad(found, (logits, tau), incoming)
    theirs = torch.autograd.grad(right, (wide, tau_too), incoming.double())
    torch.testing.assert_close(ours[0].double(), theirs[0], rtol=4 * bound, atol=4 * bound)
    size = math.sqrt(max(1, math.prod(shape)))
    torch.testing.assert_close(ours[1], theirs[1], rtol=4 * bound, atol=4 * bound * size)
    assert ours[0].dtype == dtype


@pytest.mark.parametrize("hard", [False, True])
def test_derivatives_of_derivatives(backend, hard):
    logits, tau = logits_of((4, 5), torch.float64).requires_grad_(), torch.tensor(0.8, dtype=torch.float64)
    tau.requires_grad_()
    incoming = logits_of((4, 5), torch.float64, seed=1)
    second = []
    for found in (
        gumbel_softmax(logits, tau, hard, seed=5, backend=backend),
        expected(logits, tau, hard, seed=5),
    ):
        first = torch.autograd.grad(found, (logits, tau), incoming, create_graph=True)
        second.append(torch.autograd.grad(sum((each**2).sum() for each in first), (logits, tau)))
    torch.testing.assert_close(*second, rtol=1e-9, atol=1e-9)
    assert second[0][0].abs().max() > 0


def test_other_roads(backend):
    """Forward mode, vmap, per-sample gradients and torch.compile give the same samples."""
    logits, tangent = logits_of((3, 4, 6)), logits_of((3, 4, 6), seed=1)
    eager = gumbel_softmax(logits, 0.5, seed=7, backend=backend)

    def call(x):
        return gumbel_softmax(x, 0.5, seed=7, backend=backend)

    value, slope = torch.func.jvp(call, (logits,), (tangent,))
    torch.testing.assert_close(value, eager, rtol=2e-5, atol=2e-5)
    dot = (value * tangent).sum(-1, keepdim=True)
    torch.testing.assert_close(slope, value * (tangent - dot) / 0.5, rtol=1e-4, atol=1e-4)
    # A mapped call equals the flattened one, rows counted through the whole.
    torch.testing.assert_close(torch.func.vmap(call)(logits), eager, rtol=2e-5, atol=2e-5)
    weight = logits_of((3, 4, 6), seed=2)
    whole = logits.clone().requires_grad_()
    expected_gradient = torch.autograd.grad((call(whole) * weight).sum(), whole)[0]
    per_sample = torch.func.vmap(torch.func.grad(lambda x, w: (call(x) * w).sum()))(logits, weight)
    torch.testing.assert_close(per_sample, expected_gradient, rtol=1e-4, atol=1e-4)
    compiled = torch.compile(call, fullgraph=True)
    again = logits.clone().requires_grad_()
    torch.testing.assert_close(compiled(again), eager, rtol=2e-5, atol=2e-5)
    gradient = torch.autograd.grad((compiled(again) * weight).sum(), again)[0]
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-4, atol=1e-4)


def test_layouts(backend):
    logits = logits_of((6, 4, 10))
    for view in (logits.transpose(0, 2), logits[::2, :, 3:], logits.expand(2, 6, 4, 10), logits.mT):
        for dim in range(view.dim()):
            dense = gumbel_softmax(
                view.clone(memory_format=torch.contiguous_format), seed=1, dim=dim, backend=backend
            )
            assert torch.equal(gumbel_softmax(view, seed=1, dim=dim, backend=backend), dense)
            leaf = view.detach().requires_grad_()
            torch.autograd.grad(gumbel_softmax(leaf, seed=1, dim=dim, backend=backend).sum(), leaf)


def test_masks_and_rows_that_are_not_usable(backend):
    logits = logits_of((6, 5))
    logits[0, 2] = logits[1, :4] = logits[2, :] = -INF
    logits[3, 1], logits[4, 0] = NAN, INF
    for hard in (False, True):
        leaf = logits.clone().requires_grad_()
        found = gumbel_softmax(leaf, 0.3, hard, seed=4, backend=backend)
        assert found[[2, 3, 4]].isnan().all() and found[[0, 1, 5]].isfinite().all()
        assert found[0, 2] == 0 and found[1, 4] == 1 and found[1, :4].eq(0).all()
        gradient = torch.autograd.grad((found * logits_of((6, 5), seed=1)).sum(), leaf)[0]
        assert gradient[[2, 3, 4]].eq(0).all() and gradient.isfinite().all() and gradient[0, 2] == 0
        assert gradient[[0, 5]].abs().max() > 0


def test_shards_draw_what_the_whole_would(backend):
    logits = logits_of((10, 6))
    whole = gumbel_softmax(logits, seed=9, backend=backend)
    parts = [gumbel_softmax(logits[i : i + 5], seed=9, row_offset=i, backend=backend) for i in (0, 5)]
    assert torch.equal(torch.cat(parts), whole)
    torch.manual_seed(3)
    first = gumbel_softmax(logits, backend=backend)
    assert not torch.equal(gumbel_softmax(logits, backend=backend), first)
    torch.manual_seed(3)
    assert torch.equal(gumbel_softmax(logits, backend=backend), first)


@pytest.mark.parametrize("tau", [0.3, 2.0])
def test_it_is_distributed_as_pytorchs(backend, tau):
    """One-hot draws against the logits' softmax; soft weights against PyTorch's (Kolmogorov, Smirnov)."""
    row = torch.tensor([0.3, -1.0, 2.0, 0.0, -INF, 1.1])
    logits = row.expand(20_000, -1)
    torch.manual_seed(0)
    counts = gumbel_softmax(logits, tau, hard=True, backend=backend).sum(0)
    probabilities = row.double().softmax(0).numpy()
    assert counts[4] == 0
    kept = probabilities > 0
    assert stats.chisquare(counts.numpy()[kept], 20_000 * probabilities[kept]).pvalue > 1e-3
    ours, theirs = gumbel_softmax(logits, tau, backend=backend), THEIRS(logits, tau)
    for place in np.flatnonzero(kept):
        assert stats.ks_2samp(ours[:, place].numpy(), theirs[:, place].numpy()).pvalue > 1e-3


def test_nothing_is_drawn_again_for_the_gradient(backend, monkeypatch):
    """The backward pass is that of a softmax: no backend has a part in it."""
    if backend == "reference":
        pytest.skip("its gradients are PyTorch's own")
    served = fqvae_kernels.backends.choose(backend, torch.device("cpu"))
    monkeypatch.setattr(served, "backward", None)
    leaf = logits_of((4, 8)).requires_grad_()
    for hard in (False, True):
        torch.autograd.grad(gumbel_softmax(leaf, hard=hard, backend=backend)[:, 0].sum(), leaf)


LOGITS = torch.zeros(3, 4)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: gumbel_softmax([1.0]), TypeError, "logits must be a torch.Tensor"),
        (lambda: gumbel_softmax(LOGITS.int()), TypeError, "logits must be floating point"),
        (lambda: gumbel_softmax(LOGITS, 0), ValueError, "tau must be finite and greater than 0, but was 0"),
        (lambda: gumbel_softmax(LOGITS, "1"), TypeError, "tau must be a float or a 0-d"),
        (lambda: gumbel_softmax(LOGITS, torch.ones(2)), ValueError, "tau must be a float or a 0-d tensor"),
        (lambda: gumbel_softmax(LOGITS, 1, 1), TypeError, "hard must be True or False"),
        (lambda: gumbel_softmax(LOGITS, 1, False, 1e-10), TypeError, "there is no eps"),
        (lambda: gumbel_softmax(LOGITS, dim=2), IndexError, r"dim must be in \[-2, 1\], but was 2"),
        (lambda: gumbel_softmax(torch.zeros(()), dim=1), IndexError, r"dim must be in \[-1, 0\], but was 1"),
        (lambda: gumbel_softmax(LOGITS, seed=-1), ValueError, "seed must be in"),
        (lambda: gumbel_softmax(LOGITS, row_offset=-1), ValueError, "row_offset must be"),
        (
            lambda: gumbel_softmax(torch.zeros(1).expand(2**24 + 1)),
            ValueError,
            r"at most 2\*\*24 places along dim -1",
        ),
        (lambda: gumbel_softmax(LOGITS, backend="gpu"), ValueError, "backend"),
    ],
)
def test_bad_arguments(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_in_the_place_of_pytorchs():
    logits = logits_of((4, 6)).requires_grad_()
    torch.manual_seed(1)
    ours = gumbel_softmax(logits, 0.5)
    with fqvae_kernels.patched():
        assert F.gumbel_softmax is not THEIRS and F.gumbel_softmax.__name__ == "gumbel_softmax"
        torch.manual_seed(1)
        assert torch.equal(F.gumbel_softmax(logits, 0.5, False, 1e-10, -1), ours)
        with pytest.raises(RuntimeError), fqvae_kernels.patched():
            raise RuntimeError
        assert F.gumbel_softmax is not THEIRS
        with pytest.raises(Exception, match=r"int|Int|Long"):  # PyTorch's own words
            F.gumbel_softmax(torch.zeros(2, 3, dtype=torch.int64), hard=True)
    assert F.gumbel_softmax is THEIRS
    fqvae_kernels.patch()
    try:
        torch.manual_seed(1)
        assert torch.equal(F.gumbel_softmax(logits, tau=0.5, dim=1), ours)
        fqvae_kernels.patch()
    finally:
        fqvae_kernels.unpatch()
    assert F.gumbel_softmax is THEIRS


def test_every_combination_of_needs(backend):
    """Gradients of logits, of tau, of both: each as if the other were not asked for."""
    incoming = logits_of((5, 9), seed=1)
    found = {}
    for of_logits, of_tau in itertools.product((False, True), repeat=2):
        logits = logits_of((5, 9)).requires_grad_(of_logits)
        tau = torch.tensor(0.6, requires_grad=of_tau)
        result = gumbel_softmax(logits, tau, seed=2, backend=backend)
        assert result.requires_grad == (of_logits or of_tau)
        if result.requires_grad:
            result.backward(incoming)
            found[of_logits, of_tau] = logits.grad, tau.grad
    torch.testing.assert_close(found[True, False][0], found[True, True][0])
    torch.testing.assert_close(found[False, True][1], found[True, True][1])


def test_the_benchmark_runs(monkeypatch, capsys):
    import softmax_bench

    threads = torch.get_num_threads()
    monkeypatch.setattr(softmax_bench, "SECONDS", 0.0)
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    try:
        lines = softmax_bench.main(["--threads", "1"], shapes=((8, 5), (3, 7)))
    finally:
        torch.set_num_threads(threads)
    assert [(line.rows, line.codes) for line in lines] == [(8, 5), (3, 7)]
    assert all(0 < line.forward[name] < line.both[name] for line in lines for name in line.both)
    printed = capsys.readouterr().out
    assert "| 8 x 5 |" in printed and "eager / ours" in printed and "Milliseconds." in printed


@pytest.mark.parametrize(
    "tau",
    [
        torch.ones(1, requires_grad=True),
        torch.full((4, 1), 0.5),
        torch.tensor(1),
        torch.nn.Parameter(torch.ones(1)),
    ],
    ids=["one value", "for each row", "an integer", "a parameter"],
)
def test_a_temperature_that_pytorch_alone_takes_goes_there(tau):
    logits = logits_of((4, 6))
    torch.manual_seed(1)
    expected = THEIRS(logits, tau)
    with fqvae_kernels.patched():
        torch.manual_seed(1)
        assert torch.equal(F.gumbel_softmax(logits, tau), expected)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_what_is_traced_goes_to_pytorch():
    with fqvae_kernels.patched():
        traced = torch.jit.trace(F.gumbel_softmax, (torch.zeros(4, 6),), check_trace=False)
        first, second = traced(torch.zeros(4, 6)), traced(torch.zeros(4, 6))
    assert not torch.equal(first, second)  # it draws anew


def test_more_places_than_the_kernels_count_go_to_pytorch(monkeypatch):
    monkeypatch.setattr(fqvae_kernels.patching, "MOST_CODES", 5)
    with fqvae_kernels.patched():
        torch.manual_seed(1)
        found = F.gumbel_softmax(torch.zeros(4, 6))
    torch.manual_seed(1)
    assert torch.equal(found, THEIRS(torch.zeros(4, 6)))
