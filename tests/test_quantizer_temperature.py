"""The temperature of ScalarQuantizer where it is learned."""

import copy
import math
import pickle

import pytest
import torch
from gradcases import leaf
from quantizers import z_of

from fqvae_kernels import ScalarQuantizer, gumbel_quantize

SAMPLING = ("gumbel", "straight_through", "reinmax")


def learned(start=0.5, **options):
    torch.manual_seed(1)
    return ScalarQuantizer(9, temperature=start, learn_temperature=True, **options)


@pytest.mark.parametrize("estimator", ["gumbel", "straight_through"])
def test_gradient_is_that_of_the_temperature_times_it(backend, estimator):
    """d/d ln t = t d/dt."""
    q = learned(backend=backend, estimator=estimator)
    assert {name for name, _ in q.named_parameters()} == {"codebook", "log_temperature"}
    z, temperature = z_of(10), leaf(torch.tensor(0.5))
    expected = gumbel_quantize(
        z, q.codebook.detach(), temperature=temperature, seed=3, estimator=estimator, backend=backend
    )
    out = q(z, seed=3)
    torch.testing.assert_close(out.quantized, expected.quantized)
    out.quantized.square().sum().backward()
    expected.quantized.square().sum().backward()
    assert temperature.grad.abs() > 1e-3
    torch.testing.assert_close(q.log_temperature.grad, 0.5 * temperature.grad.reshape(1))


def test_it_reads_as_the_exponential():
    q = learned(2.5)
    assert q.log_temperature.item() == pytest.approx(math.log(2.5)) and q.temperature.item() == pytest.approx(
        2.5
    )
    (gradient,) = torch.autograd.grad(q.temperature, q.log_temperature)
    assert gradient.item() == pytest.approx(2.5)


def test_sgd_that_made_it_negative_trains_it(backend):
    """A temperature that SGD moves by itself, at this rate, is negative after one of these steps."""
    torch.manual_seed(0)
    q = learned(0.5, backend=backend)
    z, target = z_of(64), 4 * z_of(64, seed=1)

    def loss(temperature, step):
        found = gumbel_quantize(z, q.codebook, temperature=temperature, seed=step, backend=backend)
        return 100 * (found.quantized - target).square().mean()

    plain = leaf(torch.tensor(0.5))
    lowest = 1.0
    for step in range(5):
        if plain.item() > 0:
            (gradient,) = torch.autograd.grad(loss(plain, step), plain)
            plain.data -= gradient
        lowest = min(lowest, plain.item())
    assert lowest < 0

    optimizer = torch.optim.SGD([q.log_temperature], lr=1.0)
    start = q.log_temperature.item()
    for step in range(40):
        optimizer.zero_grad()
        out = q(z, seed=step)
        (100 * (out.quantized - target).square().mean()).backward()
        optimizer.step()
        assert out.quantized.isfinite().all() and 0 < q.temperature.item() < math.inf
    assert q.log_temperature.item() != start


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("logarithm", [-math.inf, -1e4, -87.0, 87.0, 1e4, math.inf])
def test_it_saturates(backend, dtype, logarithm):
    q = learned(backend=backend).to(dtype)
    q.log_temperature.data.fill_(logarithm)
    expected = math.exp(max(-87.0, min(87.0, logarithm)))
    assert q.temperature.item() == pytest.approx(expected, rel=1e-4)
    for estimator in SAMPLING:
        q.estimator = estimator
        z = leaf(z_of(10).to(dtype))
        out = q(z, seed=1)
        out.quantized.sum().backward()
        assert out.quantized.isfinite().all() and z.grad.isfinite().all()
        assert q.log_temperature.grad is None or q.log_temperature.grad.isfinite()


def test_nan_is_named():
    q = learned()
    q.log_temperature.data.fill_(math.nan)
    with pytest.raises(ValueError, match=r"temperature .* nan"):
        q(z_of(3))


def test_a_parameter_means_learned():
    given = torch.nn.Parameter(torch.tensor(0.25, dtype=torch.float64))
    q = ScalarQuantizer(9, temperature=given)
    assert q.learn_temperature and "learn_temperature=True" in repr(q)
    assert q.log_temperature.dtype == torch.float64 and q.temperature.item() == pytest.approx(0.25)
    assert not ScalarQuantizer(9, temperature=torch.tensor(0.25)).learn_temperature
    assert list(ScalarQuantizer(9, temperature=torch.tensor(0.25)).state_dict()) == [
        "codebook",
        "temperature",
    ]


def test_reset_parameters_starts_it_anew():
    q = learned(0.5)
    q.log_temperature.data.fill_(3.0)
    q.reset_parameters()
    assert q.temperature.item() == pytest.approx(0.5)


def test_what_would_be_forgotten_is_refused():
    q = learned()
    with pytest.raises(AttributeError, match="log_temperature"):
        q.temperature = 0.3
    plain = ScalarQuantizer(9)
    plain.temperature = 0.3
    with pytest.raises(TypeError, match=r"temperature .*Parameter"):
        plain.temperature = torch.nn.Parameter(torch.tensor(0.3))
    for name, value in (("temperature", torch.nn.Parameter(torch.tensor(-0.5))), ("learn_temperature", 1)):
        with pytest.raises((TypeError, ValueError), match=name):
            ScalarQuantizer(9, **{name: value})


@pytest.mark.parametrize("method", ["deepcopy", "pickle", "state_dict"])
def test_copies(method):
    q = learned()
    q.log_temperature.data.fill_(0.75)
    if method == "state_dict":
        other = learned(3.0)
        other.load_state_dict(q.state_dict())
    else:
        other = copy.deepcopy(q) if method == "deepcopy" else pickle.loads(pickle.dumps(q))
    assert other.temperature.item() == q.temperature.item() == pytest.approx(math.exp(0.75))
    assert other.log_temperature is not q.log_temperature


def test_a_tensor_may_stand_for_the_parameter():
    """As in the replicas of DataParallel, and under torch.func.functional_call."""
    q = learned()
    replica = q._replicate_for_data_parallel()
    for name, parameter in q.named_parameters():
        setattr(replica, name, parameter * 1)
    replica(z_of(10), seed=1).quantized.square().sum().backward()
    first, q.log_temperature.grad = q.log_temperature.grad, None
    other = leaf(q.log_temperature.detach())
    out = torch.func.functional_call(q, {"log_temperature": other}, (z_of(10),), {"seed": 1})
    out.quantized.square().sum().backward()
    torch.testing.assert_close(other.grad, first)
    assert q.log_temperature.grad is None


def test_compiled_equals_eager_and_is_never_stale():
    torch._dynamo.reset()
    q = learned(backend="reference")
    fast = torch.compile(q, fullgraph=True, backend="aot_eager")
    z = z_of(12)

    def results(module):
        q.zero_grad()
        quantized = module(z, seed=5).quantized
        quantized.square().sum().backward()
        return quantized.detach(), q.log_temperature.grad.clone()

    results(fast)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for logarithm in (0.5, -1.0, 100.0):
            q.log_temperature.data.fill_(logarithm)
            torch.testing.assert_close(results(fast), results(q))
