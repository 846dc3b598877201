"""Limits are found before anything is computed or allocated, by an error that names the argument."""

import warnings

import pytest
import torch

from fqvae_kernels import gumbel_noise, gumbel_quantize, gumbel_quantize_logits, nearest_quantize

LOWEST32 = 2.0**-128 * (1 + 2.0**-21)
LOWEST64 = 2.0**-1024 * (1 + 2.0**-50)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("temperature", [1e-39, 2.0**-128, 1e-45, 1e-300, torch.tensor(1e-39)])
def test_a_temperature_whose_reciprocal_overflows(backend, dtype, temperature):
    z, codebook = torch.zeros(3, dtype=dtype), torch.arange(4.0)
    with pytest.raises(
        ValueError, match=r"temperature must be at least 2\.93.*e-39.*torch\.float32, but was"
    ):
        gumbel_quantize(z, codebook, temperature=temperature, backend=backend)
    with pytest.raises(ValueError, match="temperature must be at least"):
        gumbel_quantize_logits(z.expand(2, 3), codebook[:3], temperature=temperature, backend=backend)


@pytest.mark.parametrize(("temperature", "dtype"), [(LOWEST32, torch.float32), (LOWEST64, torch.float64)])
def test_the_lowest_temperature_gives_the_winning_code(backend, temperature, dtype):
    z, codebook = torch.linspace(-2, 2, 9, dtype=dtype), torch.arange(4, dtype=dtype)
    result = gumbel_quantize(z, codebook, temperature=temperature, seed=1, backend=backend)
    assert torch.equal(result.quantized, codebook[result.indices])


def test_a_temperature_below_the_lowest_of_float64(backend):
    z, codebook = torch.zeros(3, dtype=torch.float64), torch.arange(4.0)
    assert gumbel_quantize(z, codebook, temperature=1e-300, backend=backend).quantized.isfinite().all()
    with pytest.raises(ValueError, match=r"temperature must be at least 5\.56.*e-309.*torch\.float64"):
        gumbel_quantize(z, codebook, temperature=5e-309, backend=backend)


@pytest.mark.parametrize("temperature", [10**400, -(10**400)])
def test_a_temperature_beyond_every_float(backend, temperature):
    with pytest.raises(ValueError, match="temperature must be finite and greater than 0"):
        gumbel_quantize(torch.zeros(3), torch.zeros(4), temperature=temperature, backend=backend)


@pytest.mark.parametrize("codes", [2**24 + 1, 2**31, 2**40])
def test_more_codes_than_a_row_may_have(backend, codes):
    """Before memory is asked for: so much there is not."""
    with pytest.raises(ValueError, match="codes must be an int of at least 1 and at most 16777216"):
        gumbel_noise(1, 2**40, codes, backend=backend)
    codebook = torch.zeros(1).expand(codes)
    with pytest.raises(ValueError, match="codebook must hold at most 16777216 codes"):
        gumbel_quantize(torch.zeros(3), codebook, backend=backend)
    with pytest.raises(ValueError, match="codebook must hold at most 16777216 codes"):
        nearest_quantize(torch.zeros(3), codebook, backend=backend)


@pytest.mark.skipif(torch.cuda.is_available(), reason="here a CUDA device can be used")
def test_noise_on_a_device_that_is_not_there():
    with pytest.raises(ValueError, match="device 'cuda' cannot be used here"):
        gumbel_noise(1, 2, 3, device="cuda")
    with pytest.raises(ValueError, match="device 'nonsense' cannot be used here"):
        gumbel_noise(1, 2, 3, device="nonsense")


@pytest.mark.parametrize("layout", [torch.strided, torch.jagged])
def test_nested_tensors_are_refused(backend, layout):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nested = torch.nested.nested_tensor([torch.zeros(3), torch.zeros(2)], layout=layout)
    for quantize in (gumbel_quantize, nearest_quantize):
        with pytest.raises(TypeError, match="z must be a dense tensor, but was nested"):
            quantize(nested, torch.zeros(4), backend=backend)


def test_estimators_are_named(backend):
    z, codebook = torch.zeros(3), torch.zeros(4)
    with pytest.raises(ValueError, match=r"estimator must be one of 'gumbel', 'straight_through', 'reinmax'"):
        gumbel_quantize(z, codebook, estimator="best", backend=backend)
    with pytest.raises(ValueError, match="but was 'nearest'; nearest_quantize takes the nearest code"):
        gumbel_quantize(z, codebook, estimator="nearest", backend=backend)
    with pytest.raises(TypeError, match="estimator must be a str, but was 3"):
        gumbel_quantize(z, codebook, estimator=3, backend=backend)
    with pytest.raises(TypeError, match="return_kl must be True or False"):
        gumbel_quantize(z, codebook, return_kl=1, backend=backend)


def test_what_is_not_asked_for_is_none(backend):
    result = gumbel_quantize(torch.zeros(3), torch.arange(4.0), return_kl=False, seed=1, backend=backend)
    assert result.kl is None and result.weights is None
    every = gumbel_quantize(torch.zeros(3), torch.arange(4.0), seed=1, backend=backend)
    assert torch.equal(result.indices, every.indices)
    torch.testing.assert_close(result.quantized, every.quantized)


@pytest.mark.parametrize("temperature", [1.0, 1e22, 1e25, 1e30, 3e38])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_masked_codes_weigh_nothing_at_any_temperature(backend, temperature, dtype):
    """At a high one all others weigh the same."""
    codes = 70
    masked = torch.arange(codes) % 3 == 1
    logits = torch.where(masked, -torch.inf, torch.linspace(-1, 1, codes)).to(dtype).expand(33, codes)
    result = gumbel_quantize_logits(
        logits,
        torch.arange(codes, dtype=dtype),
        temperature=temperature,
        seed=1,
        return_weights=True,
        backend=backend,
    )
    assert (result.weights[:, masked] == 0).all()
    torch.testing.assert_close(result.weights.sum(-1), torch.ones(33, dtype=dtype))
    if temperature > 1:
        torch.testing.assert_close(result.weights[:, ~masked], torch.full((33, 47), 1 / 47, dtype=dtype))


@pytest.mark.parametrize("temperature", [1e-12, 1e-20, 1e-30, LOWEST32])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_of_a_row_with_a_masked_code_at_low_temperatures(backend, temperature, dtype):
    """One code holds all the weight, so only the KL has a gradient; of a masked code it is 0."""
    tau = torch.tensor(temperature, dtype=torch.float64, requires_grad=True)
    logits = torch.tensor([[0.0, -torch.inf, 1.0], [0.0, -1e30, 2.0]], dtype=dtype, requires_grad=True)
    codebook = torch.arange(3, dtype=dtype, requires_grad=True)
    result = gumbel_quantize_logits(
        logits, codebook, temperature=tau, seed=1, return_weights=True, backend=backend
    )
    (result.quantized.sum() + result.weights[:, 0].sum() + 1e13 * result.kl.sum()).backward()
    assert tau.grad == 0
    q = torch.softmax(logits.detach(), -1)
    relative = (logits.detach().clamp(min=-1e30) - (q * logits.detach().clamp(min=-1e30)).sum(-1, True)) * q
    torch.testing.assert_close(logits.grad / 1e13, relative, rtol=1e-5, atol=1e-6)
    assert torch.equal(codebook.grad, result.weights.detach().sum(0))
