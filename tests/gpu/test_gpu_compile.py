"""torch.compile(fullgraph=True) on the device, traced only and with the default compiler."""

import pytest
import torch
from cases import make
from gradcases import leaf

from fqvae_kernels import ScalarQuantizer, gumbel_quantize, gumbel_quantize_logits

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.long,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Not here: the deterministic mode that poisons memory changes what is compiled."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.fixture(params=["aot_eager", "inductor"])
def compiled(request):
    return lambda function: torch.compile(function, fullgraph=True, backend=request.param)


def close(got, expected):
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("is_logits", [False, True])
def test_a_step_equals_eager(backend, device, compiled, is_logits, hard):
    case = make(60, 5, is_logits=is_logits, latents=3)
    quantize = gumbel_quantize_logits if is_logits else gumbel_quantize

    def step(input, codebook, temperature, seed):
        out = quantize(
            input * 1.0,
            codebook,
            temperature=temperature,
            seed=seed,
            hard=hard,
            return_weights=True,
            backend=backend,
        )
        return out.quantized, out.indices, out.kl, out.weights

    def results(function):
        leaves = [leaf(t.to(device)) for t in (case.input, case.codebook, torch.tensor(0.6))]
        quantized, indices, kl, weights = function(*leaves, torch.tensor(9, device=device))
        (quantized.sum() + kl.square().sum() + weights.square().sum()).backward()
        return quantized, indices, kl, weights, *(x.grad for x in leaves)

    for got, expected in zip(results(compiled(step)), results(step), strict=True):
        close(got, expected)


def test_new_temperatures_and_seeds_recompile_nothing(backend, device, compiled):
    case = make(64, 6)

    def step(z, codebook, temperature, seed):
        return gumbel_quantize(z, codebook, temperature=temperature, seed=seed, backend=backend).quantized

    fast = compiled(step)

    def gradient(function, temperature, seed):
        z, codebook = leaf(case.input.to(device)), leaf(case.codebook.to(device))
        quantized = function(z, codebook, temperature, seed)
        quantized.sum().backward()
        return quantized, z.grad, codebook.grad

    def tensors(i):
        return torch.tensor(1.0 / (1 + i), device=device), torch.tensor(i, device=device)

    gradient(fast, *tensors(0))
    with torch._dynamo.config.patch(error_on_recompile=True):
        for i in range(1, 20):
            for got, expected in zip(gradient(fast, *tensors(i)), gradient(step, *tensors(i)), strict=True):
                close(got, expected)


def test_no_seed_draws_afresh(backend, device, compiled):
    z, codebook = torch.zeros(60, device=device), torch.randn(20, device=device)

    def step(z):
        return gumbel_quantize(z, codebook, backend=backend).indices

    fast = compiled(step)
    torch.manual_seed(6)
    first, second = fast(z), fast(z)
    assert not torch.equal(first, second)
    torch.manual_seed(6)
    assert torch.equal(first, step(z))


def test_reduce_overhead_makes_cuda_graphs(backend, device):
    """Of the whole step; each replay draws afresh, and forward and backward of one agree on the noise."""
    z, codebook = make(60, 17).input.to(device), torch.randn(17, device=device)
    counters = torch._dynamo.utils.counters

    def step(z, codebook):
        out = gumbel_quantize(z * 1.0, codebook, temperature=0.7, return_weights=True, backend=backend)
        return out.quantized, out.weights

    with torch._inductor.config.patch(graph_partition=False):  # which would split the program around the CPU
        fast = torch.compile(step, fullgraph=True, mode="reduce-overhead")
        counters.clear()
        drawn = []
        for _ in range(5):
            torch.compiler.cudagraph_mark_step_begin()
            leaves = leaf(z), leaf(codebook)
            quantized, weights = fast(*leaves)
            quantized.sum().backward()
            drawn.append(weights.detach().clone())
            weights, book = drawn[-1].double(), codebook.double()
            mean = (weights * book).sum(-1, keepdim=True)
            expected = 2 * (weights * (book - mean) * book).sum(-1) / 0.7
            torch.testing.assert_close(leaves[0].grad.double(), expected, atol=2e-5, rtol=2e-5)
    for i, one in enumerate(drawn):
        assert not any(torch.equal(one, other) for other in drawn[:i])
    if device.type == "cuda":
        assert counters["inductor"]["cudagraph_skips"] == 0


@pytest.mark.parametrize("estimator", ["gumbel", "nearest"])
def test_scalar_quantizer(backend, device, compiled, estimator):
    q = ScalarQuantizer(
        7, num_codebooks=3, estimator=estimator, kl_weight=0.1, codebook_weight=0.3, backend=backend
    ).to(device)
    z = make(60, 7, latents=3).input.to(device)

    def results(module):
        q.zero_grad()
        torch.manual_seed(8)
        out = module(z)
        (out.quantized.sum() + out.loss).backward()
        return out.quantized, out.indices, out.loss, q.codebook.grad.clone()

    for got, expected in zip(results(compiled(q)), results(q), strict=True):
        close(got, expected)
