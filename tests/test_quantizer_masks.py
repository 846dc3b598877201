"""mask: rows that do not count give 0 and -1, and a masked batch is the batch without them."""

import math

import pytest
import torch
from gradcases import leaf
from hypothesis import given
from hypothesis import strategies as st
from quantizers import ESTIMATORS, fresh_compiler, quantizer, z_of  # noqa: F401

from fqvae_kernels import ScalarQuantizer

BAD = (TypeError, ValueError)
FIELDS = ("quantized", "indices", "kl", "weights")


def mask_of(*shape, seed=3):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) < 0.6


def step(q, z, mask, **options):
    """One step on z: the output, and the gradients of z and of the parameters."""
    q.zero_grad()
    z = leaf(z)
    out = q(z, mask=mask, seed=4, return_weights=True, return_kl=True, **options)
    weight = torch.linspace(0.5, 2.0, out.quantized.numel()).reshape(out.quantized.shape)
    kept = weight if mask is None else torch.where(mask, weight, 0)
    downstream = (kept * (out.quantized + out.kl + out.weights[..., 0])).nansum()
    (downstream + out.loss).backward()
    return out, z.grad, [parameter.grad.clone() for parameter in q.parameters()]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("options", [{}, {"num_codebooks": 3, "learn_precision": True, "sorted": True}])
def test_masked_rows(backend, estimator, training, options):
    """0, -1 and no gradient where the mask is False, whatever z is there; the same samples elsewhere."""
    q = quantizer(estimator=estimator, backend=backend, temperature=0.6, **options).train(training)
    z, mask = z_of(11, 3), mask_of(11, 3)
    plain = q(z, seed=4, return_weights=True, return_kl=True)
    results = []
    for filling in (0.7, math.nan, math.inf, -3e38):
        out, grad, parameters = step(q, z.masked_fill(~mask, filling), mask)
        for name in FIELDS:
            value = getattr(out, name)
            assert torch.equal(value[mask], getattr(plain, name)[mask]), name
            assert (value[~mask] == (-1 if name == "indices" else 0)).all(), name
        assert (grad[~mask] == 0).all() and grad[mask].any()
        results.append([out.loss, grad, *parameters])
    for other in results[1:]:
        for value, expected in zip(other, results[0], strict=True):
            assert torch.equal(value, expected) and value.isfinite().all()


@given(
    rows=st.integers(0, 6),
    latents=st.integers(1, 4),
    per_codebook=st.booleans(),
    draws=st.booleans(),
    estimator=st.sampled_from(ESTIMATORS),
    data=st.data(),
)
def test_a_masked_batch_is_the_batch_without_the_masked_rows(
    rows, latents, per_codebook, draws, estimator, data
):
    """Positions at the end also where codes are drawn, whose rows keep their numbers; any where none is."""
    q = quantizer(
        estimator=estimator, num_codebooks=latents if per_codebook else 1, temperature=0.5, hard=True
    ).train(draws)
    if draws:
        kept = data.draw(st.integers(0, rows))
        mask = torch.arange(rows) < kept
    else:
        mask = torch.tensor(
            data.draw(st.lists(st.booleans(), min_size=rows, max_size=rows)), dtype=torch.bool
        )
    z = z_of(rows, latents).masked_fill(~mask.unsqueeze(-1), data.draw(st.sampled_from([0.0, math.nan])))
    out = q(z, mask=mask, seed=9, return_weights=True, return_kl=True)
    usage = q.usage
    q.reset_usage()
    expected = q(z[mask], seed=9, return_weights=True, return_kl=True)
    for name in FIELDS:
        assert torch.equal(getattr(out, name)[mask], getattr(expected, name)), name
    torch.testing.assert_close(out.loss, expected.loss, atol=1e-6, rtol=1e-6)
    assert list(out.losses) == list(expected.losses)
    assert torch.equal(usage, q.usage)


def test_gradients_are_those_without_the_masked_rows(backend):
    q = quantizer(num_codebooks=3, backend=backend)
    z, mask = z_of(11, 3), torch.arange(11) < 7
    _, grad, parameters = step(q, z, mask.unsqueeze(-1).expand(11, 3))
    q.zero_grad()
    short = leaf(z[:7])
    out = q(short, seed=4, return_weights=True)
    weight = torch.linspace(0.5, 2.0, 33).reshape(11, 3)[:7]
    ((weight * (out.quantized + out.kl + out.weights[..., 0])).sum() + out.loss).backward()
    torch.testing.assert_close(grad[:7], short.grad)
    torch.testing.assert_close(parameters[0], q.codebook.grad)


def test_a_mask_of_positions_holds_for_all_latents():
    q = quantizer(num_codebooks=3)
    z, mask = z_of(4, 5, 3), mask_of(4, 5)
    one, other = q(z, mask=mask, seed=1), q(z, mask=mask.unsqueeze(-1).expand(4, 5, 3), seed=1)
    assert torch.equal(one.indices, other.indices) and torch.equal(one.loss, other.loss)
    assert (one.indices == -1).all(-1).equal(~mask)


@pytest.mark.parametrize("shape", [(), (0,), (2, 0)])
def test_small_shapes(shape):
    out = quantizer()(torch.zeros(shape), mask=torch.zeros(shape, dtype=torch.bool), return_weights=True)
    assert out.quantized.shape == shape and not out.quantized.any() and out.loss == 0


def test_a_whole_batch_may_be_masked():
    q = quantizer()
    out, grad, parameters = step(q, z_of(5, 3), torch.zeros(5, 3, dtype=torch.bool))
    assert out.loss == 0 and not grad.any() and not any(parameter.any() for parameter in parameters)
    assert q.usage.sum() == 0


def test_what_a_compiled_program_returned_is_counted_without_the_masked_rows():
    q = quantizer(num_codebooks=3)
    indices = q(z_of(20, 3), mask=mask_of(20, 3)).indices
    usage = q.usage
    assert usage.sum() == mask_of(20, 3).sum()
    q.reset_usage()
    q.count_usage(indices)
    assert torch.equal(q.usage, usage)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtypes(backend, dtype):
    q = quantizer(backend=backend)
    out = q(z_of(9, 2).to(dtype), mask=mask_of(9, 2), return_weights=True)
    assert out.quantized.dtype == out.weights.dtype == dtype and out.quantized.isfinite().all()


def test_bad_masks_are_named():
    q = ScalarQuantizer(5)
    for mask in (torch.ones(4, 2), [True], torch.ones(4, 2, dtype=torch.uint8)):
        with pytest.raises(TypeError, match=r"mask must be a torch\.bool"):
            q(z_of(4, 2), mask=mask)
    for shape in ((2,), (4, 1), (4, 2, 1), (), (1, 2)):
        with pytest.raises(ValueError, match=r"mask must have shape \(4, 2\), .*or \(4,\)"):
            q(z_of(4, 2), mask=torch.ones(shape, dtype=torch.bool))
    with pytest.raises(ValueError, match="mask must have shape"):
        q(torch.tensor(0.1), mask=torch.ones(1, dtype=torch.bool))
    with pytest.raises(ValueError, match="mask must be on the device of z"):
        q(z_of(4, 2), mask=torch.ones(4, 2, dtype=torch.bool, device="meta"))
    with pytest.raises(TypeError, match="z must be floating point"):
        q(torch.arange(3), mask=torch.ones(3, dtype=torch.bool))


@pytest.mark.parametrize("estimator", ["gumbel", "nearest"])
@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_under_compile_and_vmap(estimator):
    q = quantizer(num_codebooks=3, estimator=estimator)
    z, mask = z_of(8, 3), mask_of(8, 3)
    expected = q(z, mask=mask, seed=2, return_weights=True)
    compiled = torch.compile(q, fullgraph=True, backend="aot_eager")
    for out in (
        compiled(z, mask=mask, seed=2, return_weights=True),
        torch.func.vmap(lambda z, mask: q(z, mask=mask, seed=2, return_weights=True))(
            z.reshape(2, 4, 3), mask.reshape(2, 4, 3)
        ),
    ):
        for name in FIELDS:
            value = getattr(out, name)
            if value is not None:
                torch.testing.assert_close(
                    value.reshape(getattr(expected, name).shape), getattr(expected, name)
                )
