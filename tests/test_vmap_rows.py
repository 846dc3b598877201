"""torch.func.vmap over any dimension gives what one call on the whole gives: rows in C order of the whole."""

import pytest
import torch
from torch import func

from fqvae_kernels import GumbelVectorQuantizer, ScalarQuantizer, gumbel_softmax


def numbers(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("over", range(4))
@pytest.mark.parametrize("dim", range(3))
def test_gumbel_softmax(over, dim):
    x = numbers(2, 3, 4, 5)
    for given in (dim, dim - 3):
        found = func.vmap(lambda part, given=given: gumbel_softmax(part, dim=given, seed=5), over, over)(x)
        expected = gumbel_softmax(x, dim=dim + (over <= dim), seed=5)
        torch.testing.assert_close(found, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("outer", range(4))
@pytest.mark.parametrize("inner", range(3))
def test_gumbel_softmax_of_parts_of_parts(outer, inner):
    """The last of the dimensions that are left holds the codes."""
    x = numbers(2, 3, 4, 5)
    left = [dim for dim in range(4) if dim != outer]
    code = [dim for dim in left if dim != left[inner]][-1]
    parts = func.vmap(func.vmap(lambda part: gumbel_softmax(part, seed=5), inner, inner), outer, outer)(x)
    torch.testing.assert_close(parts, gumbel_softmax(x, dim=code, seed=5), rtol=2e-5, atol=2e-5)


QUANTIZERS = {
    "plain": {},
    "precision": {"precision": 2.0},
    "learned precision": {"learn_precision": True, "precision": 0.5},
    "levels": {"levels": [7, 5, 3, 6], "codebook_size": None},
    "estimator": {"estimator": "reinmax", "precision": 3.0},
}


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("over", range(3))
@pytest.mark.parametrize("name", QUANTIZERS)
def test_scalar_quantizer(name, over, masked):
    torch.manual_seed(0)
    q = ScalarQuantizer(**{"codebook_size": 7, **QUANTIZERS[name]})
    z = numbers(2, 3, 5, 4)
    mask = numbers(2, 3, 5, 4) > -0.5

    def call(part, where):
        out = q(part, seed=7, mask=where if masked else None)
        return out.indices, out.quantized

    found = func.vmap(call, (over, over), over)(z, mask)
    for got, expected in zip(found, call(z, mask), strict=True):
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("over", range(4))
@pytest.mark.parametrize("options", [{}, {"dim": 4, "num_latents": 3}], ids=["latents", "projected"])
@pytest.mark.parametrize("precision", [1.0, 2.0])
def test_channels_first(over, options, precision):
    """As the same quantizer with the channels of the whole behind."""
    torch.manual_seed(0)
    q = ScalarQuantizer(7, channel_first=True, precision=precision, **options)
    behind = ScalarQuantizer(7, channel_first=False, precision=precision, **options)
    behind.load_state_dict(q.state_dict())
    x = numbers(2, 4, 4, 4)
    channels = 1 + (over <= 1)  # of the whole
    found = func.vmap(lambda part: q(part, seed=7).quantized, over, over)(x)
    expected = behind(x.movedim(channels, -1), seed=7).quantized.movedim(-1, channels)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("over", range(3))
@pytest.mark.parametrize("projected", [False, True])
def test_vector_quantizer(over, projected):
    torch.manual_seed(0)
    q = GumbelVectorQuantizer(10 if projected else None, 5, 6, num_codebooks=2)
    x = numbers(2, 3, 4, 10)
    parts = func.vmap(lambda part: q(part, seed=3).indices, over, over)(x)
    assert torch.equal(parts, q(x, seed=3).indices)
    # Samples behind the logits: the positions are those before them.
    behind = func.vmap(lambda part: q(part, seed=3).indices, 3, 2)(x.movedim(over, -1))
    assert torch.equal(behind, q(x.movedim(over, 2), seed=3).indices)


def test_gradients_of_parts():
    """Per-sample gradients and slopes go through as before."""
    q = ScalarQuantizer(7, precision=2.0)
    z, weight = numbers(3, 4, 5), numbers(3, 4, 5) + 1
    whole = z.clone().requires_grad_()
    (q(whole, seed=7).quantized * weight).sum().backward()
    found = func.vmap(func.grad(lambda part, w: (q(part, seed=7).quantized * w).sum()), 1, 1)(z, weight)
    torch.testing.assert_close(found, whole.grad, rtol=1e-4, atol=1e-4)
    slopes = func.vmap(
        lambda part, t: func.jvp(lambda each: q(each, seed=7).quantized, (part,), (t,))[1], 1, 1
    )(z, weight)
    expected = func.jvp(lambda each: q(each, seed=7).quantized, (z,), (weight,))[1]
    torch.testing.assert_close(slopes, expected, rtol=1e-4, atol=1e-4)


def test_what_differs_is_not_the_input():
    """A parameter of each sample's own: the samples count as if they lay in front."""
    q = ScalarQuantizer(7, learn_precision=True)
    z = numbers(4, 5)
    logs = torch.tensor([0.1, 0.2, 0.3])

    def call(log):
        return func.functional_call(q, {"log_precision": log}, (z,), {"seed": 7}).indices

    found = func.vmap(call)(logs.reshape(3, *q.log_precision.shape))
    assert found.shape == (3, 4, 5)
    assert torch.equal(found[0], call(logs[0].reshape(q.log_precision.shape)))
