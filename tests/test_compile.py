"""torch.compile(fullgraph=True), and the registered operators under opcheck."""

import shutil
import warnings

import pytest
import torch
from cases import make
from gradcases import leaf

import fqvae_kernels
from fqvae_kernels import ScalarQuantizer, gumbel_quantize, gumbel_quantize_logits, nearest_quantize

# Tracing and the split into forward and backward, without a C++ compiler; the last test takes inductor.
COMPILER = "aot_eager"


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Not here: the deterministic mode that poisons memory changes what is compiled."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.fixture(params=fqvae_kernels.available_backends())
def served(request):
    """Every backend that serves on the CPU, once."""
    if request.param not in ("cpu", "reference"):
        pytest.skip("needs another device")
    return request.param


def compiled(function, compiler=COMPILER):
    return torch.compile(function, fullgraph=True, backend=compiler)


def close(got, expected):
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def gumbel(input, codebook, temperature, seed, *, is_logits, hard, weights, backend):
    quantize = gumbel_quantize_logits if is_logits else gumbel_quantize
    return quantize(
        input * 1.0,
        codebook,
        temperature=temperature,
        seed=seed,
        hard=hard,
        return_weights=weights,
        backend=backend,
    )


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("is_logits", [False, True])
@pytest.mark.parametrize("latents", [0, 3])
def test_gumbel_equals_eager(served, is_logits, hard, latents):
    case = make(12, 5, is_logits=is_logits, latents=latents)

    def step(input, codebook, temperature, seed):
        out = gumbel(
            input, codebook, temperature, seed, is_logits=is_logits, hard=hard, weights=True, backend=served
        )
        return out.quantized, out.indices, out.kl, out.weights

    def gradients(function):
        leaves = leaf(case.input), leaf(case.codebook), leaf(torch.tensor(0.6))
        quantized, indices, kl, weights = function(*leaves, torch.tensor(9))
        (quantized.sum() + kl.square().sum() + weights.square().sum()).backward()
        return quantized, indices, kl, weights, *(x.grad for x in leaves)

    for got, expected in zip(gradients(compiled(step)), gradients(step), strict=True):
        close(got, expected)


def test_without_gradients_and_without_weights(served):
    case = make(20, 5)

    def step(z):
        out = gumbel_quantize(z, case.codebook, seed=5, backend=served)
        assert out.weights is None
        return out.quantized, out.kl

    for got, expected in zip(compiled(step)(case.input), step(case.input), strict=True):
        close(got, expected)


def test_nearest_equals_eager(served):
    case = make(12, 5, latents=3)

    def step(z, codebook):
        out = nearest_quantize(z * 2.0, codebook, backend=served)
        return out.quantized * 3.0, out.indices

    def gradients(function):
        z = leaf(case.input)
        quantized, indices = function(z, case.codebook)
        quantized.square().sum().backward()
        return quantized, indices, z.grad

    for got, expected in zip(gradients(compiled(step)), gradients(step), strict=True):
        close(got, expected)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("estimator", ["gumbel", "nearest"])
def test_scalar_quantizer_equals_eager(served, estimator, training):
    q = ScalarQuantizer(
        7,
        num_codebooks=3,
        estimator=estimator,
        kl_weight=0.1,
        commitment_weight=0.2,
        codebook_weight=0.3,
        backend=served,
    ).train(training)
    z = make(12, 7, latents=3).input

    def results(module):
        q.zero_grad()
        torch.manual_seed(8)
        out = module(z, return_weights=True)
        (out.quantized.sum() + out.loss).backward()
        return out.quantized, out.indices, out.loss, out.weights, q.codebook.grad.clone()

    for got, expected in zip(results(compiled(q)), results(q), strict=True):
        close(got, expected)


@pytest.mark.parametrize("estimator", ["gumbel", "nearest"])
@pytest.mark.parametrize(
    "name", ["kl_weight", "commitment_weight", "codebook_weight", "temperature", "precision"]
)
def test_quantizers_with_other_numbers_share_a_process(estimator, name):
    """torch.compile makes a variable of a number that it has met with two values."""
    z = make(12, 6).input
    for value in (1.0, 0.3, 0.1):
        torch.manual_seed(1)
        q = ScalarQuantizer(6, estimator=estimator, backend="reference", **{name: value})
        for got, expected in zip(compiled(q)(z, seed=1), q(z, seed=1), strict=True):
            close(got, expected)
    if name.endswith("weight"):
        q = ScalarQuantizer(6, estimator=estimator, backend="reference", **{name: 0.0})
        close(compiled(q)(z, seed=1).loss, q(z, seed=1).loss)


def test_a_changing_temperature_recompiles_nothing_and_is_never_stale(served):
    case = make(16, 6)

    def step(z, codebook, temperature):
        out = gumbel_quantize(z, codebook, temperature=temperature, seed=3, backend=served)
        return out.quantized

    fast = compiled(step)
    fast(leaf(case.input), leaf(case.codebook), torch.tensor(1.0))
    compilations = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    with torch._dynamo.config.patch(error_on_recompile=True):
        for i in range(100):
            temperature = torch.tensor(1.0 / (1 + i))
            z, codebook = leaf(case.input), leaf(case.codebook)
            quantized = fast(z, codebook, temperature)
            quantized.sum().backward()
            eager_z = leaf(case.input)
            expected = step(eager_z, case.codebook, temperature)
            expected.sum().backward()
            close(quantized, expected)
            close(z.grad, eager_z.grad)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == compilations


def test_a_temperature_buffer_changed_in_place_is_never_stale(served):
    """The schedule of a training loop: the module's own buffer is multiplied at each step."""
    q = ScalarQuantizer(6, temperature=torch.tensor(2.0), backend=served)
    fast = compiled(q)
    z = make(16, 6).input
    fast(z)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for _ in range(20):
            q.temperature.mul_(0.8)
            torch.manual_seed(1)
            got = fast(z).quantized
            torch.manual_seed(1)
            close(got, q(z).quantized)


def test_no_seed_draws_afresh(served):
    """Each call, and each of two calls in a graph, has its own noise, as manual_seed decides in eager."""
    z, codebook = torch.zeros(60), torch.randn(20)

    def step(z):
        first = gumbel_quantize(z, codebook, backend=served)
        second = gumbel_quantize(z, codebook, backend=served)
        return first.indices, second.indices

    fast = compiled(step)
    torch.manual_seed(6)
    calls = [fast(z) for _ in range(2)]
    drawn = [indices for pair in calls for indices in pair]
    for i, one in enumerate(drawn):
        assert not any(torch.equal(one, other) for other in drawn[:i])
    torch.manual_seed(6)
    eager = [indices for _ in range(2) for indices in step(z)]
    for one, other in zip(drawn, eager, strict=True):
        assert torch.equal(one, other)


def test_no_seed_with_a_backward_pass_uses_the_forwards_noise(served):
    case = make(30, 6)

    def gradients(function):
        torch.manual_seed(4)
        z = leaf(case.input)
        function(z).square().sum().backward()
        return z.grad

    def step(z):
        return gumbel_quantize(z, case.codebook, temperature=0.5, backend=served).quantized

    close(gradients(compiled(step)), gradients(step))


def test_a_seed_tensor_that_changes_recompiles_nothing(served):
    case = make(16, 6)

    def step(z, seed):
        return gumbel_quantize(z, case.codebook, seed=seed, backend=served).indices

    fast = compiled(step)
    fast(case.input, torch.tensor(0))
    with torch._dynamo.config.patch(error_on_recompile=True):
        for seed in (1, 2**40, -5):
            assert torch.equal(fast(case.input, torch.tensor(seed)), step(case.input, torch.tensor(seed)))


def test_dynamic_shapes(served):
    codebook = torch.randn(6)

    def step(z):
        return gumbel_quantize(z, codebook, seed=3, backend=served).quantized

    fast = torch.compile(step, fullgraph=True, backend=COMPILER, dynamic=True)
    for rows in (4, 5, 17, 33):
        z = torch.randn(rows)
        close(fast(z), step(z))


@pytest.mark.parametrize("options", [{"num_codebooks": 3}, {"dim": 3, "num_latents": 2}])
def test_dynamic_channels(options):
    """A size that the compiler does not know is compared with the one that the module has."""
    q = ScalarQuantizer(5, channel_first=True, estimator="nearest", **options)
    fast = torch.compile(q, fullgraph=True, backend=COMPILER, dynamic=True)
    for shape in ((4, 3, 5), (2, 3, 7)):
        z = torch.randn(shape)
        found, expected = fast(z), q(z)
        close(found.quantized, expected.quantized)
        codes = torch.compile(q.codes, fullgraph=True, backend=COMPILER, dynamic=True)
        close(codes(expected.indices), q.codes(expected.indices))


@pytest.mark.skipif(
    shutil.which("g++") is None and shutil.which("clang++") is None, reason="inductor needs a compiler"
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_inductor(served):
    """The default compiler: one training step, with the seed drawn inside the graph."""
    q = ScalarQuantizer(6, kl_weight=0.1, backend=served)
    case = make(16, 6)

    def results(module):
        q.zero_grad()
        torch.manual_seed(2)
        z = leaf(case.input)
        out = module(z)
        (out.quantized.sum() + out.loss).backward()
        return out.quantized, out.indices, out.loss, z.grad, q.codebook.grad.clone()

    eager = results(q)
    for got, expected in zip(results(compiled(q, "inductor")), eager, strict=True):
        close(got, expected)


# opcheck of torch 2.14 looks at the gradient of tensors that are not leaves.
of_opcheck = pytest.mark.filterwarnings(
    "ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"
)


def opcheck(name, *arguments):
    operator = getattr(torch.ops.fqvae_kernels, name).default
    result = torch.library.opcheck(operator, arguments)
    assert set(result.values()) == {"SUCCESS"}


@of_opcheck
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("is_logits", [False, True])
@pytest.mark.parametrize("latents", [0, 3])
def test_opcheck_gumbel(cpu_backend, dtype, is_logits, latents):
    case = make(6, 5, dtype=dtype, is_logits=is_logits, latents=latents)
    temperature, seed = torch.tensor(0.7, dtype=torch.float64), torch.tensor(3)
    # The last one wants no kl.
    for hard, wants in (
        (False, [True] * 4),
        (True, [True, True, True, False]),
        (False, [True, True, False, True]),
    ):
        fields = 0, "gumbel", is_logits, hard, *wants, True, True, True
        arguments = (case.input, case.codebook, seed, temperature, *fields, cpu_backend)
        opcheck("quantize", *arguments)
        leaves = leaf(case.input), leaf(case.codebook), seed, leaf(temperature)
        opcheck("quantize", *leaves, *arguments[4:])
        out = torch.ops.fqvae_kernels.quantize(*arguments)
        soft = out[3] if wants[3] and not hard and out[3].dtype == out[4].dtype else None
        incoming = (
            torch.ones_like(out[0]),
            torch.ones_like(out[2]) if wants[2] else None,
            torch.ones_like(out[3]) if wants[3] else None,
        )
        opcheck("quantize_backward", *arguments, out[1], out[4], soft, *incoming, True, True, True)


@of_opcheck
def test_opcheck_nearest_and_draws(cpu_backend):
    case = make(6, 5, latents=3)
    opcheck("nearest", case.input, case.codebook, cpu_backend)
    opcheck("nearest", leaf(case.input), case.codebook, cpu_backend)
    opcheck("gumbel_noise", torch.tensor(3), 4, 5, 0, torch.device("cpu"), torch.float32, cpu_backend)
    opcheck("row_uniform", torch.tensor(3), 4, 0, torch.device("cpu"), torch.float32)


def test_every_operator_is_checked():
    """A new operator needs an opcheck here."""
    names = {
        schema.name.split("::")[1]
        for schema in torch._C._jit_get_all_schemas()
        if schema.name.startswith("fqvae_kernels::")
    }
    # draw_seed gives another number at each call, which opcheck's comparison of two calls cannot allow.
    assert names == {"quantize", "quantize_backward", "nearest", "gumbel_noise", "row_uniform", "draw_seed"}


def test_the_first_compilation_warns_of_nothing():
    """It warned of the cache in the choice of a backend, into which torch.compile looked."""
    torch._dynamo.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compiled(lambda z: gumbel_quantize(z, torch.ones(4), seed=1).quantized)(torch.randn(5))
