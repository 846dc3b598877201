"""The entropy term of ScalarQuantizer's loss."""

import math

import pytest
import torch
from gradcases import leaf
from quantizers import ESTIMATORS, z_of

from fqvae_kernels import ScalarQuantizer
from fqvae_kernels._quantizer import entropy


def informed(**options):
    torch.manual_seed(1)
    return ScalarQuantizer(**({"codebook_size": 5, "entropy_weight": 0.7} | options))


def formula(z, codebook, precision=1.0):
    """mean H(q) - H(mean q) of z (rows, latents) in float64, NaN rows left out: each latent by itself."""
    total, rows = 0.0, z.isfinite().sum()
    for latent in range(z.shape[1]):
        column = z[:, latent].double()
        column = column[column.isfinite()]
        book = (codebook if codebook.dim() == 1 else codebook[latent]).double()
        q = (-precision * (column[:, None] - book) ** 2).softmax(-1)
        mean = q.mean(0)
        information = -(q * q.log()).sum(-1).mean() + (mean * mean.log()).sum()
        total = total + information * len(column) / rows
    return total


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("num_codebooks", [1, 3])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_it_is_the_formula(backend, estimator, num_codebooks, training):
    q = informed(estimator=estimator, num_codebooks=num_codebooks, backend=backend).train(training)
    z = leaf(2 * z_of(4, 10, 3))
    out = q(z, seed=1)
    assert list(out.losses) == ["entropy"] and out.loss.dtype == torch.float32
    x, book = leaf(z.detach().double()), leaf(q.codebook.detach().double())
    expected = 0.7 * formula(x.reshape(-1, 3), book)
    assert -0.7 * math.log(5) < expected < -0.05
    torch.testing.assert_close(out.loss.double(), expected, atol=1e-5, rtol=1e-5)
    out.loss.backward()
    expected.backward()
    torch.testing.assert_close(z.grad.double(), x.grad, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(q.codebook.grad.double(), book.grad, atol=1e-6, rtol=1e-4)


def test_it_adds_to_the_others_and_one_dimension_is_one_latent():
    q = informed(kl_weight=0.1, commitment_weight=0.2, estimator="nearest")
    out = q(z_of(20))
    assert list(out.losses) == ["kl", "commitment", "entropy"]
    torch.testing.assert_close(sum(out.losses.values()), out.loss)
    expected = 0.7 * formula(z_of(20)[:, None], q.codebook.detach())
    torch.testing.assert_close(out.losses["entropy"].double(), expected, atol=1e-5, rtol=1e-5)
    assert q(z_of(20), return_kl=False).kl is None


@pytest.mark.parametrize("estimator", ["gumbel", "nearest"])
def test_gradcheck(estimator):
    q = informed(codebook_size=4, num_codebooks=2, estimator=estimator).double()

    def loss(z, codebook):
        return torch.func.functional_call(q, {"codebook": codebook}, (z,), {"seed": 1}).loss

    arguments = leaf(z_of(6, 2).double()), leaf(z_of(2, 4, seed=1).double())
    assert torch.autograd.gradcheck(loss, arguments)
    assert torch.autograd.gradgradcheck(loss, arguments)


@pytest.mark.parametrize("num_codebooks", [1, 3])
def test_chunks_change_nothing(monkeypatch, num_codebooks):
    results = []
    for chunk in (2**20, 70):
        monkeypatch.setattr(entropy, "_CHUNK", chunk)
        q, z = informed(num_codebooks=num_codebooks).double(), leaf(z_of(50, 3).double())
        values = z_of(50, 3).double()
        values[7, 1] = math.nan
        z = leaf(values)
        loss = q(z, seed=1).loss
        loss.backward()
        results.append((loss, z.grad, q.codebook.grad))
    for got, expected in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-14)


def test_chunks_hold_no_weights_of_all_codes(native, monkeypatch):
    """The KL beside it does not either; the reference, which computes it without the kernels, would."""
    monkeypatch.setattr(entropy, "_CHUNK", 1000)
    rows, codes, kept = 4000, 50, []

    def keep(tensor):
        kept.append(tensor.numel())
        return tensor

    q, z = informed(codebook_size=codes, estimator="nearest"), leaf(z_of(rows))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        q(z).loss.backward()
    assert max(kept) < rows * codes / 10


@pytest.mark.parametrize("precision", [4.0, [0.5, 2.0, 9.0]])
@pytest.mark.parametrize("learn", [False, True])
def test_with_a_precision(precision, learn):
    q = informed(num_codebooks=3, precision=precision, learn_precision=learn)
    z = z_of(20, 3)
    values = [precision] * 3 if isinstance(precision, float) else precision
    expected = sum(
        formula(z[:, [latent]], q.codebook[latent].detach(), values[latent]) for latent in range(3)
    )
    loss = q(z).loss
    torch.testing.assert_close(loss.double(), 0.7 * expected / 3, atol=1e-5, rtol=1e-5)
    loss.backward()
    assert not learn or q.log_precision.grad.abs().min() > 1e-4


@pytest.mark.parametrize("num_codebooks", [1, 3])
def test_rows_that_are_not_finite_are_left_out(backend, num_codebooks):
    q = informed(num_codebooks=num_codebooks, backend=backend)
    values = z_of(20, 3)
    values[:5, 0], values[7, 1], values[8, 1] = math.nan, math.inf, -math.inf
    z = leaf(values)
    out = q(z)
    finite = torch.where(values.isfinite(), values, math.nan)
    torch.testing.assert_close(
        out.loss.double(), 0.7 * formula(finite, q.codebook.detach()), atol=1e-5, rtol=1e-5
    )
    out.loss.backward()
    assert q.codebook.grad.isfinite().all() and torch.equal(z.grad != 0, values.isfinite())


def test_extremes_give_numbers():
    """Codes that nobody is near, far z, nothing that counts, a codebook that is not finite."""
    q = informed(codebook_size=3, init=torch.tensor([0.0, 1.0, 1e30]), num_codebooks=2)
    for z in (torch.tensor([[0.1, 1e38], [-1e38, 0.7]]), torch.full((4, 2), math.nan), torch.empty(0, 2)):
        q.zero_grad()
        x = leaf(z)
        loss = q(x).loss
        loss.backward()
        assert loss.isfinite() and x.grad.isfinite().all() and q.codebook.grad.isfinite().all()
    assert loss == 0
    q.codebook.data[1, 0] = math.nan
    q.zero_grad()
    loss = q(leaf(torch.tensor([[0.1, 0.2], [0.6, 0.2]]))).loss
    loss.backward()
    assert loss.isfinite() and loss < 0 and q.codebook.grad.isfinite().all()


def test_its_bounds():
    """ln K where each code has as many rows as any other, 0 where all rows are alike."""
    codes = 100 * torch.arange(4.0)
    q = informed(codebook_size=4, entropy_weight=1.0, init=codes, estimator="nearest")
    assert q(codes.repeat(5)).loss.item() == pytest.approx(-math.log(4), abs=1e-6)
    assert q(torch.full((5,), 50.0)).loss.item() == pytest.approx(0.0, abs=1e-6)


def test_compiled_and_vmap_equal_eager():
    torch._dynamo.reset()
    q = informed(num_codebooks=3, backend="reference")
    z = leaf(z_of(20, 3))
    expected = q(z, seed=1).loss
    got = torch.compile(q, fullgraph=True, backend="aot_eager")(z, seed=1).loss
    torch.testing.assert_close(got, expected)
    for one, other in zip(*(torch.autograd.grad(x, (z, q.codebook)) for x in (got, expected)), strict=True):
        torch.testing.assert_close(one, other)
    several = torch.func.vmap(lambda x: q(x, seed=1).loss)(torch.stack((z, 2 * z)))
    torch.testing.assert_close(several[0], expected)
    torch.testing.assert_close(several[1], q(2 * z, seed=1).loss)


@pytest.mark.parametrize("value", [-1.0, math.nan, "high"])
def test_bad_weights_are_named(value):
    with pytest.raises((TypeError, ValueError), match="entropy_weight"):
        informed(entropy_weight=value)
