"""ScalarQuantizer's codes: how they start, their order, and the precision that tells them apart."""

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from gradcases import leaf

from fqvae_kernels import ScalarQuantizer, gumbel_noise, gumbel_quantize, nearest_quantize

SAMPLING = ("gumbel", "straight_through", "reinmax")
SEED = 11


def z_of(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def textbook(z, codebook, log_precision, estimator, hard, temperature, indices):
    """quantized, kl and weights in plain float64 PyTorch, by the definitions; indices are those drawn."""
    precision = log_precision.exp().reshape(-1, 1) if log_precision.dim() == 1 else log_precision.exp()
    logits = -precision * (z.unsqueeze(-1) - codebook) ** 2
    posterior = logits.softmax(-1)
    codes = codebook.shape[-1]
    kl = (posterior * (logits.log_softmax(-1) + math.log(codes))).sum(-1)
    one_hot = torch.nn.functional.one_hot(indices, codes).double()
    relaxed = (logits / temperature).softmax(-1)
    if estimator == "gumbel":
        noise = gumbel_noise(SEED, z.numel(), codes, dtype=torch.float64).reshape(logits.shape)
        weights = ((logits + noise) / temperature).softmax(-1)
        if hard:
            weights = one_hot + weights - weights.detach()
    elif estimator == "straight_through":
        weights = one_hot + relaxed - relaxed.detach()
    else:
        mixed = ((relaxed + one_hot) / 2).detach()
        # The derivative of this softmax, taken where it equals `mixed`, is that of the definition.
        surrogate = 2 * (mixed.log() + logits - logits.detach()).softmax(-1) - posterior / 2
        weights = one_hot + surrogate - surrogate.detach()
    return (weights * codebook).sum(-1), kl, weights


@pytest.mark.parametrize("num_codebooks", [1, 3])
@pytest.mark.parametrize("learn", [False, True])
@pytest.mark.parametrize(
    ("estimator", "hard"),
    [("gumbel", False), ("gumbel", True), ("straight_through", False), ("reinmax", False)],
)
def test_precision_is_a_factor_on_the_distance(backend, estimator, hard, learn, num_codebooks):
    precision = [0.3, 2.5, 7.0][:num_codebooks] if num_codebooks > 1 else 2.5
    q = ScalarQuantizer(
        6,
        num_codebooks=num_codebooks,
        estimator=estimator,
        hard=hard,
        temperature=0.7,
        precision=precision,
        learn_precision=learn,
        backend=backend,
    )
    z = leaf(z_of(20, 3))
    out = q(z, seed=SEED, return_weights=True)
    (out.quantized.square().sum() + 0.3 * out.kl.sum() + (out.weights * torch.arange(6.0)).sum()).backward()

    x, book = leaf(z.detach().double()), leaf(q.codebook.detach().double())
    log_precision = leaf(torch.as_tensor(precision, dtype=torch.float64).log())
    quantized, kl, weights = textbook(x, book, log_precision, estimator, hard, 0.7, out.indices)
    (quantized.square().sum() + 0.3 * kl.sum() + (weights * torch.arange(6.0)).sum()).backward()

    pairs = [(out.quantized, quantized), (out.kl, kl), (out.weights, weights)]
    pairs += [(z.grad, x.grad), (q.codebook.grad, book.grad)]
    if learn:
        pairs.append((q.log_precision.grad, log_precision.grad.reshape_as(q.log_precision)))
    for got, expected in pairs:
        torch.testing.assert_close(got.double(), expected, atol=2e-4, rtol=2e-4)
    if hard or estimator != "gumbel":
        assert torch.equal(out.quantized, q.codes(out.indices))


@pytest.mark.parametrize("estimator", [*SAMPLING, "nearest"])
@pytest.mark.parametrize("precision", [1, 1.0, [1.0, 1.0, 1.0], torch.ones(3)])
def test_precision_1_changes_no_bit(monkeypatch, estimator, precision):
    """And costs no multiplication: nothing of the part is called."""
    plain = ScalarQuantizer(6, num_codebooks=3, estimator=estimator, kl_weight=0.1)
    q = ScalarQuantizer(6, num_codebooks=3, estimator=estimator, kl_weight=0.1, precision=precision)
    q.load_state_dict(plain.state_dict())
    for name in ("scaled_z", "scaled_codebook", "unscaled", "exactly"):
        monkeypatch.setattr(f"fqvae_kernels._quantizer.precision.{name}", None)
    results = []
    for module in (plain, q):
        module.zero_grad()
        z = leaf(z_of(20, 3))
        out = module(z, seed=SEED)
        (out.quantized.square().sum() + out.loss).backward()
        results.append((out.quantized, out.indices, out.kl, out.loss, z.grad, module.codebook.grad))
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))
    assert q.precision == 1.0


@pytest.mark.parametrize("training", [False, True])
def test_precision_leaves_nearest_codes_alone(backend, training):
    q = ScalarQuantizer(
        6, num_codebooks=3, estimator="nearest", precision=[0.1, 3.0, 50.0], backend=backend
    ).train(training)
    z = z_of(50, 3)
    out, expected = q(z), nearest_quantize(z, q.codebook, backend=backend)
    assert torch.equal(out.quantized, expected.quantized) and torch.equal(out.indices, expected.indices)


@pytest.mark.parametrize("estimator", ["gumbel", "nearest"])
def test_kl_of_nearest_codes_knows_the_precision(backend, estimator):
    q = ScalarQuantizer(6, estimator=estimator, kl_weight=1.0, precision=4.0, backend=backend).eval()
    z = z_of(30)
    posterior = (-4 * (z.double()[:, None] - q.codebook.detach().double()) ** 2).softmax(-1)
    expected = (posterior * (posterior * 6).log()).sum(-1)
    torch.testing.assert_close(q(z).kl.double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("estimator", SAMPLING)
def test_precision_keeps_dtypes(backend, dtype, estimator):
    """A product in z's own dtype would round z once more."""
    q = ScalarQuantizer(6, estimator=estimator, precision=3.0, learn_precision=True, backend=backend)
    z = z_of(40, dtype=dtype)
    out = q(z, seed=SEED, return_weights=True)
    assert out.quantized.dtype == out.weights.dtype == dtype
    compute = torch.float64 if dtype == torch.float64 else torch.float32
    assert out.kl.dtype == out.loss.dtype == compute
    exact = q(z.to(compute), seed=SEED)
    assert torch.equal(out.indices, exact.indices) and torch.equal(out.kl, exact.kl)
    assert torch.equal(out.quantized, exact.quantized.to(dtype))


@pytest.mark.parametrize("estimator", [*SAMPLING, "nearest"])
def test_rows_that_are_not_finite_give_a_learned_precision_no_gradient(backend, estimator):
    q = ScalarQuantizer(6, estimator=estimator, precision=2.0, learn_precision=True, backend=backend)
    values = z_of(12)
    values[2], values[5], values[7] = math.nan, math.inf, -math.inf
    z = leaf(values)
    kept = values.isfinite()
    out = q(z, seed=SEED, return_kl=True)
    assert torch.equal(out.quantized.isnan(), ~kept) and torch.equal(out.kl.isnan(), ~kept)
    (out.quantized.nansum() + out.quantized.sum() * 2 + out.kl.sum()).backward()
    for gradient in (z.grad, q.codebook.grad, q.log_precision.grad):
        assert gradient.isfinite().all()
    assert q.log_precision.grad != 0 and not z.grad[~kept].any()


@pytest.mark.parametrize("estimator", SAMPLING)
def test_a_finite_z_stays_finite_at_any_precision(backend, estimator):
    q = ScalarQuantizer(6, estimator=estimator, precision=100.0, init="linspace", backend=backend)
    z = leaf(torch.tensor([3e38, -3e38, 0.1]))
    out = q(z, seed=SEED)
    assert out.indices[0] == 5 and out.indices[1] == 0
    (out.quantized.sum() + out.kl.sum()).backward()
    assert out.quantized.isfinite().all() and z.grad.isfinite().all() and q.codebook.grad.isfinite().all()


def test_precision_reads_as_it_was_given():
    assert ScalarQuantizer(6, precision=0.1).precision == 0.1
    assert ScalarQuantizer(6, precision=[0.1]).precision == 0.1
    q = ScalarQuantizer(6, num_codebooks=2, precision=[0.1, 2])
    assert torch.equal(q.precision, torch.tensor([0.1, 2.0])) and list(q.state_dict()) == ["codebook"]
    assert ScalarQuantizer(6, num_codebooks=2, precision=[3.0, 3.0]).precision == 3.0
    assert "precision=0.1" in repr(ScalarQuantizer(6, precision=0.1))


def test_precision_is_learned_through_its_logarithm():
    q = ScalarQuantizer(6, num_codebooks=3, precision=4.0, learn_precision=True)
    assert {name for name, _ in q.named_parameters()} == {"codebook", "log_precision"}
    assert list(q.state_dict()) == ["codebook", "log_precision"]
    torch.testing.assert_close(q.precision.detach(), torch.full((3,), 4.0))
    alone = ScalarQuantizer(6, learn_precision=True)
    assert q.log_precision.shape == (3,) and alone.log_precision.shape == (1,) and alone.precision.dim() == 0
    # A step that would take the precision itself below 0.
    with torch.no_grad():
        q.log_precision -= 50.0
    assert (q.precision > 0).all() and q(z_of(5, 3)).quantized.isfinite().all()
    q.reset_parameters()
    torch.testing.assert_close(q.precision.detach(), torch.full((3,), 4.0))


def test_a_learned_precision_finds_the_scale_of_the_data():
    """Codes are fixed and far apart: only a larger precision makes the drawn code the right one."""
    codes = torch.tensor([-0.3, 0.0, 0.3])
    q = ScalarQuantizer(3, init=codes, learn_precision=True, temperature=0.5)
    q.codebook.requires_grad_(False)
    optimizer = torch.optim.Adam([q.log_precision], lr=0.1)
    x = codes[torch.randint(3, (500,), generator=torch.Generator().manual_seed(0))]
    for step in range(60):
        optimizer.zero_grad()
        (q(x, seed=step).quantized - x).square().mean().backward()
        optimizer.step()
    assert q.precision.item() > 20


def test_an_init_of_another_type_is_named():
    with pytest.raises(TypeError, match=r"init must be a tensor or one of .* was of type ndarray"):
        ScalarQuantizer(3, init=np.zeros(3))


@pytest.mark.parametrize("init", ["normal", "uniform", "linspace"])
def test_named_inits(init):
    torch.manual_seed(0)
    book = ScalarQuantizer(1000, num_codebooks=2, init=init).codebook.detach()
    assert book.shape == (2, 1000)
    if init == "normal":
        assert abs(book.std().item() - 1) < 0.1 and abs(book.mean().item()) < 0.1
        assert not torch.equal(book[0], book[1])
    else:
        assert book.min() >= -0.5 and book.max() <= 0.5 and book.max() - book.min() > 0.99
    if init == "linspace":
        torch.testing.assert_close(book[1], torch.linspace(-0.5, 0.5, 1000))


@pytest.mark.parametrize("init", ["normal", "uniform", "linspace"])
def test_init_scale(init):
    torch.manual_seed(3)
    plain = ScalarQuantizer(50, init=init).codebook
    torch.manual_seed(3)
    scaled = ScalarQuantizer(50, init=init, init_scale=2.5)
    assert torch.equal(scaled.codebook, plain * 2.5)
    assert "init_scale=2.5" in repr(scaled)


def test_init_scale_of_a_tensor_is_refused():
    with pytest.raises(ValueError, match="init_scale must be 1 where init is a tensor, but was 2"):
        ScalarQuantizer(3, init=torch.zeros(3), init_scale=2.0)


@pytest.mark.parametrize("num_codebooks", [1, 3])
@pytest.mark.parametrize("init", ["normal", "uniform", "linspace"])
def test_sorted_codes_start_as_init_says(init, num_codebooks):
    torch.manual_seed(3)
    plain = ScalarQuantizer(50, num_codebooks=num_codebooks, init=init).codebook.detach()
    torch.manual_seed(3)
    q = ScalarQuantizer(50, num_codebooks=num_codebooks, init=init, sorted=True)
    torch.testing.assert_close(q.codebook.detach(), plain.sort(-1).values, atol=1e-4, rtol=1e-4)
    assert q.codebook.shape == plain.shape and list(q.state_dict()) == ["codebook_steps"]


def test_sorted_codes_of_a_tensor():
    q = ScalarQuantizer(4, init=torch.tensor([3.0, -1.0, 3.0, 50.0]), sorted=True)
    torch.testing.assert_close(q.codebook.detach(), torch.tensor([-1.0, 3.0, 3.0, 50.0]))
    assert q.codebook_steps.isfinite().all()


@pytest.mark.parametrize("estimator", [*SAMPLING, "nearest"])
def test_sorted_codes_stay_sorted(backend, estimator):
    """Steps of any size, in any direction: a random walk of the parameter, then one of training."""
    q = ScalarQuantizer(
        8, estimator=estimator, sorted=True, codebook_weight=1.0, kl_weight=0.1, backend=backend
    )
    optimizer = torch.optim.SGD(q.parameters(), lr=1.0)
    start = q.codebook.detach().clone()
    for step in range(20):
        optimizer.zero_grad()
        out = q(3 * z_of(60, seed=step), seed=step)
        (out.loss + out.quantized.square().mean()).backward()
        optimizer.step()
        assert (q.codebook.diff() >= 0).all() and q.codebook.isfinite().all()
    assert not torch.equal(q.codebook, start)
    with torch.no_grad():
        q.codebook_steps.copy_(z_of(8, seed=1) * 100)
    assert (q.codebook.diff() >= 0).all()


def test_the_gradient_of_sorted_codes():
    """code k is c + the sum of softplus of the first k steps."""
    q = ScalarQuantizer(4, sorted=True)
    q.codebook.backward(torch.tensor([1.0, 10.0, 100.0, 1000.0]))
    slope = q.codebook_steps.detach()[1:].sigmoid()
    expected = torch.cat((torch.tensor([1111.0]), slope * torch.tensor([1110.0, 1100.0, 1000.0])))
    torch.testing.assert_close(q.codebook_steps.grad, expected)


@pytest.mark.parametrize("method", ["deepcopy", "pickle", "state_dict"])
def test_copies_keep_order_and_precision(method, tmp_path):
    options = {"num_codebooks": 3, "sorted": True, "precision": [1.0, 2.0, 3.0], "learn_precision": True}
    q = ScalarQuantizer(5, **options)
    q(z_of(10, 3))
    if method == "deepcopy":
        other = copy.deepcopy(q)
    elif method == "pickle":
        other = pickle.loads(pickle.dumps(q))
    else:
        other = ScalarQuantizer(5, **options)
        torch.save(q.state_dict(), tmp_path / "state.pt")
        other.load_state_dict(torch.load(tmp_path / "state.pt"))
    assert torch.equal(q.codebook, other.codebook) and torch.equal(q.precision, other.precision)
    one, two = q(z_of(10, 3), seed=1), other(z_of(10, 3), seed=1)
    assert torch.equal(one.quantized, two.quantized)


def test_functional_call_reaches_the_steps(backend):
    q = ScalarQuantizer(5, sorted=True, learn_precision=True, backend=backend)
    steps, log_precision = leaf(torch.zeros(5)), leaf(torch.tensor(0.7))
    out = torch.func.functional_call(
        q, {"codebook_steps": steps, "log_precision": log_precision}, (z_of(10),), {"seed": 1}
    )
    codes = torch.arange(5) * math.log(2)
    factor = math.exp(0.35)
    expected = gumbel_quantize(z_of(10) * factor, codes * factor, seed=1, backend=backend)
    assert torch.equal(out.indices, expected.indices)
    torch.testing.assert_close(out.quantized, expected.quantized / factor)
    out.quantized.sum().backward()
    assert steps.grad.any() and log_precision.grad.any() and q.codebook_steps.grad is None


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("estimator", ["gumbel", "straight_through", "nearest"])
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_sorted_codes_and_precision_compile(native, backend, estimator):
    torch._dynamo.reset()
    q = ScalarQuantizer(
        5,
        num_codebooks=2,
        estimator=estimator,
        sorted=True,
        precision=2.0,
        learn_precision=True,
        kl_weight=0.1,
        backend=backend,
    )
    compiled = torch.compile(q, fullgraph=True, backend="aot_eager")

    def results(module):
        q.zero_grad()
        z = leaf(z_of(10, 2))
        out = module(z, seed=3)
        (out.quantized.sum() + out.loss).backward()
        return out.quantized, out.kl, out.loss, z.grad, q.codebook_steps.grad, q.log_precision.grad

    for got, expected in zip(results(compiled), results(q), strict=True):
        torch.testing.assert_close(got, expected)
