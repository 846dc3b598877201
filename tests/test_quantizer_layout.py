"""channel_first: the latents in dimension 1. What it gives is what the moved tensor gives, moved back."""

import copy
import pickle

import pytest
import torch
from gradcases import leaf
from hypothesis import given
from hypothesis import strategies as st
from quantizers import ESTIMATORS, fresh_compiler, quantizer, z_of  # noqa: F401

from fqvae_kernels import ScalarQuantizer

FIELDS = ("quantized", "indices", "kl", "weights")


def moved(value, name="quantized"):
    return value.movedim(-2 if name == "weights" else -1, 1)


def both(**options):
    """A quantizer with channel_first, and the same one without."""
    one, other = quantizer(channel_first=True, **options), quantizer(channel_first=False, **options)
    other.load_state_dict(one.state_dict())
    return one, other


def assert_alike(one, other, z, mask=None, **options):
    """Outputs, gradients and counts of `one` for z are those of `other` for the moved z."""
    first, last = leaf(z), leaf(z.movedim(1, -1).contiguous())
    last_mask = mask.movedim(1, -1) if mask is not None and mask.dim() == z.dim() else mask
    got = one(first, mask=mask, seed=3, return_weights=True, return_kl=True, **options)
    expected = other(last, mask=last_mask, seed=3, return_weights=True, return_kl=True, **options)
    for name in FIELDS:
        assert torch.equal(getattr(got, name), moved(getattr(expected, name), name)), name
    for name in ("quantized", "indices", "kl"):
        assert getattr(got, name).is_contiguous()
    torch.testing.assert_close(got.loss, expected.loss)  # a sum, in another order
    factor = torch.linspace(-1, 1, expected.quantized.numel()).reshape(expected.quantized.shape)
    ((moved(factor) * got.quantized).sum() + got.loss).backward()
    ((factor * expected.quantized).sum() + expected.loss).backward()
    torch.testing.assert_close(first.grad, moved(last.grad))
    for (name, parameter), twin in zip(one.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, twin.grad, msg=name)
    assert torch.equal(one.usage, other.usage)
    assert torch.equal(one.codes(got.indices), moved(other.codes(expected.indices)))
    return got


@given(
    shape=st.lists(st.integers(0, 4), min_size=2, max_size=5),
    several=st.booleans(),
    training=st.booleans(),
    estimator=st.sampled_from(ESTIMATORS),
    masked=st.sampled_from([None, "latents", "positions"]),
)
def test_channel_first_equals_movedim(shape, several, training, estimator, masked):
    if several:
        shape[1] = max(shape[1], 1)
    one, other = both(num_codebooks=shape[1] if several else 1, estimator=estimator, hard=True)
    one.train(training), other.train(training)
    mask = None
    if masked is not None:
        mask = z_of(*(shape if masked == "latents" else [*shape[:1], *shape[2:]]), seed=5) > 0
    assert_alike(one, other, z_of(*shape), mask)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_on_every_backend(backend, estimator):
    one, other = both(num_codebooks=3, estimator=estimator, backend=backend, learn_precision=True)
    assert_alike(one, other, z_of(2, 3, 4, 5))
    z = z_of(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    assert one(z).quantized.is_contiguous(memory_format=torch.channels_last)


def test_usage_has_a_row_for_each_channel():
    q = ScalarQuantizer(5, channel_first=True)
    indices = q(z_of(2, 3, 4, 6)).indices
    expected = torch.stack(
        [torch.bincount(indices[:, channel].reshape(-1), minlength=5) for channel in range(3)]
    )
    assert torch.equal(q.usage, expected) and q.perplexity().shape == (3,)
    q.count_usage(indices.int())
    assert torch.equal(q.usage, 2 * expected)


@pytest.mark.parametrize(
    ("shape", "channel_first", "rows"),
    [
        ((2, 3, 4, 6), None, 1),
        ((2, 3, 4, 6), False, 6),
        ((2, 3, 4, 6), True, 3),
        ((2, 3, 4, 5, 6), None, 1),
        ((2, 3, 4), None, 4),
        ((2, 3, 4), True, 3),
        ((2, 3), True, 3),
        ((7,), False, 1),
    ],
)
def test_rows_of_usage_under_one_codebook(shape, channel_first, rows):
    """An image whose layout is not said has no row for each column."""
    q = ScalarQuantizer(5, channel_first=channel_first)
    indices = q(z_of(*shape)).indices
    assert q.usage.shape == (rows, 5)
    assert torch.equal(q.usage.sum(0), torch.bincount(indices.reshape(-1), minlength=5))


def test_a_layout_that_does_not_fit_is_named():
    q = quantizer(num_codebooks=3)
    for shape in ((2, 3, 4, 5), (2, 3, 4), (2, 3, 4, 5, 6)):
        for call in (q, lambda z: q.codes(z.long()), lambda z: q.count_usage(z.long())):
            with pytest.raises(ValueError, match=r"must have shape \(\.\.\., 3\).*channel_first=True"):
                call(torch.zeros(shape))
    for shape in ((2, 4, 5, 6), (4, 2), (), (5,)):
        with pytest.raises(ValueError, match="z") as caught:
            q(torch.zeros(shape))
        assert "channel_first" not in str(caught.value)
    one = quantizer(num_codebooks=3, channel_first=True)
    for shape in ((2, 4, 3), (3,), (), (4, 2)):
        for call in (one, lambda z: one.codes(z.long())):
            with pytest.raises(
                ValueError, match=r"must have shape \(batch, 3, \.\.\.\).*channel_first is True"
            ):
                call(torch.zeros(shape))
    with pytest.raises(ValueError, match=r"\(batch, latents, \.\.\.\)"):
        quantizer(channel_first=True)(z_of(4))
    with pytest.raises(TypeError, match="channel_first must be True, False or None"):
        quantizer(channel_first=1)
    with pytest.raises(ValueError, match=r"mask must have shape \(2, 3, 4\).* or \(2, 4\)"):
        one(z_of(2, 3, 4), mask=torch.ones(2, 4, 3, dtype=torch.bool))


def test_a_layout_that_could_be_meant_in_two_ways_is_asked_for():
    z = z_of(2, 3, 5, 3)
    with pytest.raises(ValueError, match=r"channel_first must be given.*=True.*=False"):
        quantizer(num_codebooks=3)(z)
    for channel_first in (True, False):
        assert quantizer(num_codebooks=3, channel_first=channel_first)(z).indices.shape == z.shape
    # A sequence is as long as it has latents now and then: that is no image.
    assert quantizer(num_codebooks=3)(z_of(2, 3, 3)).indices.shape == (2, 3, 3)


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_under_compile_export_and_vmap():
    q, z = quantizer(num_codebooks=3, channel_first=True), z_of(2, 3, 4, 5)
    expected = q(z, seed=2)
    assert torch.equal(
        torch.compile(q, fullgraph=True, backend="aot_eager")(z, seed=2).indices, expected.indices
    )
    batched = torch.func.vmap(lambda part: q(part, seed=2))(z_of(2, 1, 3, 4))
    assert torch.equal(batched.indices[:, 0], q(z_of(2, 1, 3, 4)[:, 0], seed=2).indices)
    q.eval()
    program = torch.export.export(q, (z,)).module()
    assert torch.equal(program(z).quantized, q(z).quantized)


@pytest.mark.parametrize("method", ["deepcopy", "pickle"])
def test_copies(method):
    q = quantizer(channel_first=True)
    q(z_of(2, 3, 4))
    other = copy.deepcopy(q) if method == "deepcopy" else pickle.loads(pickle.dumps(q))
    assert torch.equal(other(z_of(2, 3, 4), seed=1).indices, q(z_of(2, 3, 4), seed=1).indices)
    assert "channel_first=True" in repr(other)
