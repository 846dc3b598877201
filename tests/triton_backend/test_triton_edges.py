"""Backend "triton", interpreted: bad and masked codes, outputs that nobody wants, kept weights."""

import pytest
import torch
from cases import DTYPES, compute_dtype, make, output_gradients
from gradcases import leaf, weighted_sum
from interpreter import launcher, launching_with

import fqvae_kernels
from fqvae_kernels import backends
from fqvae_kernels._call import Call, Incoming, Kept, Needs, Wants

ESTIMATORS = ("gumbel", "straight_through", "reinmax")
NAN, INFINITY = float("nan"), float("inf")


def step(case, backend, given, **options):
    """Outputs, and gradients of input and codebook."""
    leaves = leaf(case.input), leaf(case.codebook)
    out = case.call(backend, input=leaves[0], codebook=leaves[1], return_weights=True, **options)
    loss = weighted_sum((out.quantized, out.kl, out.weights), given)
    return out, torch.autograd.grad(loss, leaves)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("is_logits", [False, True])
@pytest.mark.parametrize("value", [NAN, INFINITY, -INFINITY])
def test_a_bad_code_spoils_its_codebook_alone(interpreted, estimator, is_logits, value):
    """NaN, an index in range, and no gradient to z or to any of the codes, whatever comes from above."""
    case = make(27, 11, latents=3, is_logits=is_logits, temperature=0.5)
    given = output_gradients(case)
    expected, true = step(case, interpreted, given, estimator=estimator)
    book = case.codebook.clone()
    book[1, 4] = value
    for gradient in given:
        gradient[:, 1] = NAN
    got, gradients = step(case.but(codebook=book), interpreted, given, estimator=estimator)
    # Last digits may differ: beside a wide codebook a program sees all its rows from their nearest codes.
    good = torch.tensor([0, 2])
    for ours, whole in zip(got, expected, strict=True):
        torch.testing.assert_close(ours[:, good], whole[:, good], rtol=1e-5, atol=1e-5)
    assert ((got.indices >= 0) & (got.indices < 11)).all()
    for output in (got.quantized, got.kl, got.weights):
        assert output[:, 1].isnan().all()
    torch.testing.assert_close(gradients[0][:, good], true[0][:, good], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradients[1][good], true[1][good], rtol=1e-5, atol=1e-5)
    assert not gradients[0][:, 1].any() and not gradients[1][1].any()


@pytest.mark.parametrize("value", [NAN, INFINITY, -INFINITY])
@pytest.mark.parametrize("latents", [0, 3])
def test_a_bad_code_spoils_the_nearest_code(interpreted, value, latents):
    case = make(27, 11, latents=latents)
    book = case.codebook.clone().reshape(-1, 11)
    book[-1, 4] = value
    book = book.reshape(case.codebook.shape)
    z = leaf(case.input)
    got = fqvae_kernels.nearest_quantize(z, book, backend=interpreted)
    bad = torch.zeros_like(z, dtype=torch.bool)
    bad[..., -1 if latents else slice(None)] = True
    assert torch.equal(got.quantized.isnan(), bad)
    assert ((got.indices >= 0) & (got.indices < 11)).all()
    got.quantized.nan_to_num().sum().backward()
    assert not z.grad[bad].any()


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bad_rows_beside_the_largest_codes(interpreted, estimator, dtype):
    """A row that is not usable sends no gradient, also to codes whose differences overflow."""
    largest = torch.finfo(dtype).max
    book = torch.tensor([largest, -largest], dtype=dtype)
    for is_logits, input in (
        (True, [[NAN, 0.0], [0.0, INFINITY], [-INFINITY, -INFINITY]]),
        (False, [NAN, INFINITY, -INFINITY]),
    ):
        case = make(3, 2, dtype=dtype, is_logits=is_logits, temperature=0.5)
        case = case.but(input=torch.tensor(input, dtype=dtype), codebook=book)
        got, gradients = step(case, interpreted, output_gradients(case), estimator=estimator)
        assert got.quantized.isnan().all() and got.kl.isnan().all() and got.weights.isnan().all()
        assert not gradients[0].any() and not gradients[1].any()


@pytest.mark.parametrize("temperature", [1e20, 1e24, 1e30, 3e38])
@pytest.mark.parametrize("dtype", DTYPES)
def test_masked_codes_weigh_nothing_at_any_temperature(interpreted, dtype, temperature):
    """The others share the weight equally; K is no multiple of 4, so that a tile has padding too."""
    logits = torch.zeros(6, 13, dtype=dtype)
    logits[:, [0, 5, 12]] = -INFINITY
    case = make(6, 13, dtype=dtype, is_logits=True, temperature=temperature).but(input=logits)
    given = output_gradients(case)
    got, gradients = step(case, interpreted, given)
    expected = torch.where(logits == -INFINITY, 0.0, 0.1).to(dtype)
    torch.testing.assert_close(got.weights, expected, rtol=1e-5 if dtype.itemsize > 2 else 1e-2, atol=0)
    assert not got.weights[:, [0, 5, 12]].any() and not gradients[0][:, [0, 5, 12]].any()
    assert gradients[0].isfinite().all() and gradients[1].isfinite().all()


@pytest.mark.parametrize("temperature", [1e20, 1e24, 1e30, 3e38])
def test_padding_weighs_nothing_at_any_temperature(interpreted, temperature):
    case = make(9, 13, temperature=temperature)
    got, gradients = step(case, interpreted, output_gradients(case))
    torch.testing.assert_close(got.weights, torch.full_like(got.weights, 1 / 13))
    torch.testing.assert_close(got.quantized, case.codebook.mean().expand(9))
    assert gradients[0].isfinite().all() and gradients[1].isfinite().all()


WANTS = [Wants(q, i, k, w) for q in (0, 1) for i in (0, 1) for k in (0, 1) for w in (0, 1)]


@pytest.mark.parametrize("estimator", [*ESTIMATORS, "hard", "nearest"])
def test_only_what_is_wanted(interpreted, estimator):
    """What the call does not want is None; the rest is the same to the bit."""
    case = make(9, 7)
    backend = backends.kernel(interpreted)
    hard = estimator == "hard"
    call = Call("gumbel" if hard else estimator, hard=hard, temperature=0.5, seed=3)
    whole = backend.forward(case.input, case.codebook, call._replace(wants=Wants(weights=True)), None)
    for wants in WANTS:
        outputs = backend.forward(case.input, case.codebook, call._replace(wants=wants), None)
        for wanted, output, full in zip(wants, outputs, whole, strict=True):
            if not wanted or full is None:
                assert output is None
            else:
                assert torch.equal(output, full)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("is_logits", [False, True])
def test_a_kl_that_nobody_wants_changes_no_gradient(interpreted, estimator, is_logits):
    case = make(27, 11, latents=3, is_logits=is_logits, temperature=0.5)
    a, _, v = output_gradients(case)
    _, expected = step(case, interpreted, (a, None, v), estimator=estimator)
    got, gradients = step(case, interpreted, (a, None, v), estimator=estimator, return_kl=False)
    assert got.kl is None and all(map(torch.equal, gradients, expected))
    call = Call(estimator, is_logits, wants=Wants(kl=False))
    kernel = backends.kernel(interpreted)
    assert kernel.stats_rows(call) == {"gumbel": 5, "straight_through": 5, "reinmax": 8}[estimator]


class Watching:
    """The interpreter's launcher, which keeps what is launched."""

    def __init__(self):
        self.launched = []

    def __call__(self, kernel, programs, arguments):
        self.launched.append((kernel.fn.__name__, arguments))
        launcher(kernel, programs, arguments)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("is_logits", [False, True])
@pytest.mark.parametrize("codes", [11, 150])
def test_kept_weights_are_read(serves_cpu, codes, is_logits, dtype):
    """With them the seed is of no account, and the gradients are those of the weights drawn again."""
    case = make(6, codes, dtype=dtype, latents=3, is_logits=is_logits, temperature=0.5)
    case.input[1, 2] = NAN
    needs = Needs(True, True, False)
    call = Call("gumbel", is_logits, temperature=0.5, seed=3, wants=Wants(weights=True), needs=needs)
    backend, incoming = backends.kernel("triton"), Incoming(*output_gradients(case))
    book = case.codebook.to(compute_dtype(dtype))
    stats = book.new_empty(backend.stats_rows(call), 6)
    watching = Watching()
    with launching_with(watching):
        _, indices, _, weights = backend.forward(case.input, book, call, stats)
        weights = weights.to(book.dtype)
        drawn = backend.backward(case.input, book, call, Kept(indices, stats), incoming, needs)
        watching.launched.clear()
        other = call._replace(seed=4)
        read = backend.backward(case.input, book, other, Kept(indices, stats, weights), incoming, needs)
    names = [name for name, _ in watching.launched]
    assert ("weights_mean_kernel" in names) == (codes > 128 or dtype == torch.float64)
    bound = {torch.float64: 1e-11, torch.float32: 1e-5}.get(dtype, 2e-2)
    for ours, theirs in zip(read[:2], drawn[:2], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=bound, atol=bound)
    assert not read[0][1, 2].any()


def test_kept_weights_serve_autograd(serves_cpu):
    """A loss on soft weights reads them, but for the temperature's gradient, which wants their logarithms."""
    case = make(9, 11, temperature=0.5)
    for learned in (False, True):
        temperature = leaf(torch.tensor(0.5), learned)
        watching = Watching()
        with launching_with(watching):
            out = case.call("triton", input=leaf(case.input), temperature=temperature, return_weights=True)
            out.weights.square().sum().backward()
        arguments = dict(watching.launched)["backward_kernel"]
        assert (arguments["weights"] is None) == learned
