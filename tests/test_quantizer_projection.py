"""dim and num_latents: what comes out is the quantizer between two linear layers, written out."""

import copy
import math
import pickle

import pytest
import torch
from gradcases import leaf
from quantizers import ESTIMATORS, fresh_compiler, quantizer, z_of  # noqa: F401

from fqvae_kernels import ScalarQuantizer

OPTIONS = {"dim": 6, "num_latents": 3}


def plain(projected, **options):
    """The quantizer without its projections."""
    other = quantizer(num_codebooks=projected.num_codebooks, **options)
    other.codebook.data.copy_(projected.codebook)
    return other


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("num_codebooks", [1, 3])
def test_is_a_quantizer_between_two_linear_layers(backend, estimator, training, num_codebooks):
    options = {"estimator": estimator, "backend": backend, "temperature": 0.6}
    q = quantizer(**OPTIONS, num_codebooks=num_codebooks, **options).train(training)
    other = plain(q, **options).train(training)
    down, up = copy.deepcopy(q.project_in), copy.deepcopy(q.project_out)
    z, same = leaf(z_of(4, 5, 6)), leaf(z_of(4, 5, 6))
    out = q(z, seed=2, return_weights=True, return_kl=True)
    inner = other(down(same), seed=2, return_weights=True, return_kl=True)
    quantized = up(inner.quantized)
    assert torch.equal(out.quantized, quantized) and out.quantized.shape == z.shape
    for name in ("indices", "kl", "weights", "loss"):
        assert torch.equal(getattr(out, name), getattr(inner, name)), name
    assert out.indices.shape == (4, 5, 3) and out.weights.shape == (4, 5, 3, 5)
    assert q.usage.shape == (3, 5) and torch.equal(q.usage, other.usage)
    (out.quantized.square().sum() + out.loss).backward()
    (quantized.square().sum() + inner.loss).backward()
    torch.testing.assert_close(z.grad, same.grad)
    for one, twin in ((q.project_in, down), (q.project_out, up)):
        torch.testing.assert_close(one.weight.grad, twin.weight.grad)
        torch.testing.assert_close(one.bias.grad, twin.bias.grad)
    if q.codebook.grad is not None:
        torch.testing.assert_close(q.codebook.grad, other.codebook.grad)


@pytest.mark.parametrize("shape", [(2, 6), (2, 6, 4), (2, 6, 4, 5)])
def test_channel_first_equals_movedim(shape):
    one, other = quantizer(**OPTIONS, channel_first=True), quantizer(**OPTIONS, channel_first=False)
    other.load_state_dict(one.state_dict())
    z = z_of(*shape)
    mask = z_of(shape[0], 3, *shape[2:], seed=2) > 0
    got = one(z, seed=1, mask=mask, return_weights=True)
    expected = other(z.movedim(1, -1), seed=1, mask=mask.movedim(1, -1), return_weights=True)
    assert got.indices.shape == mask.shape and got.weights.shape == (*mask.shape, 5)
    assert torch.equal(got.quantized, expected.quantized.movedim(-1, 1))
    assert torch.equal(got.indices, expected.indices.movedim(-1, 1))
    assert torch.equal(got.weights, expected.weights.movedim(-2, 1))
    assert torch.equal(one.usage, other.usage)
    assert torch.equal(one.codes(got.indices), other.codes(expected.indices).movedim(-1, 1))


def test_codes_are_what_was_quantized():
    q = quantizer(**OPTIONS, hard=True)
    mask = z_of(4, 5, seed=2) > 0
    out = q(z_of(4, 5, 6), mask=mask)
    torch.testing.assert_close(q.codes(out.indices), out.quantized)
    assert not out.quantized[~mask].any() and out.quantized[mask].any(-1).all()
    q.codes(out.indices).sum().backward()
    assert q.codebook.grad.any() and q.project_out.weight.grad.any()


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("masked", [True, False])
def test_a_position_that_is_not_finite_stays_alone(backend, estimator, masked):
    """Neither the mask nor NaN lets it reach the weights of the projections, which it would make NaN."""
    q = quantizer(**OPTIONS, estimator=estimator, backend=backend)
    z = z_of(5, 6)
    results = []
    for filling in (math.nan, math.inf, -math.inf):
        q.zero_grad()
        spoilt = z.clone()
        spoilt[1, 4] = filling
        spoilt[3] = filling
        spoilt = leaf(spoilt)
        finite = spoilt.detach().isfinite().all(-1)
        out = q(spoilt, mask=finite if masked else None, seed=1)
        wrong = out.quantized[~finite]
        assert (wrong == 0).all() if masked else wrong.isnan().all()
        (out.quantized[finite].sum() + out.loss).backward()
        assert not spoilt.grad[~finite].any() and spoilt.grad[finite].any()
        results.append([out.quantized[finite], out.loss, *(value.grad for value in q.parameters())])
    clean = q(z, seed=1).quantized[finite]
    for values in results:
        assert torch.equal(values[0], clean)
        for value, expected in zip(values, results[0], strict=True):
            assert torch.equal(value, expected) and value.isfinite().all()


def test_a_mask_of_some_latents():
    """The others of the position go through project_out, those that are masked as 0."""
    q = quantizer(**OPTIONS, hard=True)
    mask = torch.tensor([[True, True, True], [True, False, True], [False, False, False]])
    out, whole = q(z_of(3, 6), mask=mask, seed=1), q(z_of(3, 6), seed=1)
    codes = torch.where(mask, q.codebook[whole.indices], 0)
    torch.testing.assert_close(out.quantized[:2], q.project_out(codes)[:2])
    assert torch.equal(out.quantized[0], whole.quantized[0]) and not out.quantized[2].any()


def test_number_of_latents():
    q = ScalarQuantizer(5, num_codebooks=3, dim=6)
    assert q.num_latents == 3 and q.codebook.shape == (3, 5)
    assert q(z_of(6)).indices.shape == (3,) and q.usage.shape == (3, 5)
    for options, message in (
        ({"dim": 6}, "num_latents must be given"),
        ({"num_latents": 3}, "num_latents must be None without dim"),
        ({"dim": 0, "num_latents": 3}, "dim must be an int of at least 1"),
        ({"dim": 6, "num_latents": 2.5}, "num_latents must be an int"),
        (
            {"dim": 6, "num_latents": 2, "num_codebooks": 3},
            r"num_latents must be the number of codebooks \(3\)",
        ),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            ScalarQuantizer(5, **options)


def test_a_size_that_does_not_fit_is_named():
    q = quantizer(**OPTIONS)
    with pytest.raises(ValueError, match=r"z must have shape \(\.\.\., 6\), but had shape \(4, 5\)$"):
        q(z_of(4, 5))
    with pytest.raises(ValueError, match=r"takes the channels from dimension 1"):
        q(z_of(4, 6, 5, 5))
    with pytest.raises(ValueError, match="channel_first must be given"):
        q(z_of(4, 6, 5, 6))
    with pytest.raises(ValueError, match=r"indices must have shape \(\.\.\., 3\)"):
        q.codes(torch.zeros(4, 6, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"mask must have shape \(4, 3\).* or \(4,\)"):
        q(z_of(4, 6), mask=torch.ones(4, 6, dtype=torch.bool))


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_copies_autocast_and_compile():
    q = quantizer(**OPTIONS, estimator="nearest")
    assert list(q.state_dict()) == [
        "codebook",
        "project_in.weight",
        "project_in.bias",
        "project_out.weight",
        "project_out.bias",
    ]
    z = z_of(4, 6)
    expected = q(z).quantized
    for other in (copy.deepcopy(q), pickle.loads(pickle.dumps(q))):
        assert torch.equal(other(z).quantized, expected)
    compiled = torch.compile(q, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(z).quantized, expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = q(z)
    assert out.quantized.dtype == torch.bfloat16 and out.loss.dtype == torch.float32
