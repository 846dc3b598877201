"""Derivatives that no kernel computes, against finite differences: second ones, forward mode, torch.func."""

import pytest
import torch
import torch.autograd.forward_ad as forward_ad
from cases import make
from torch import func

from fqvae_kernels import gumbel_noise, gumbel_quantize, gumbel_quantize_logits, nearest_quantize

# PyTorch's own forward-mode AD scripts its decompositions.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")

ESTIMATORS = ("gumbel", "straight_through", "reinmax")


@pytest.fixture(params=["cpu", "reference"])
def served(request):
    """The backends whose derivatives are looked at, on CPU tensors."""
    return request.getfixturevalue("cpu_backend") if request.param == "cpu" else request.param


def double_case(is_logits=False, latents=0):
    case = make(6, 4, dtype=torch.float64, is_logits=is_logits, latents=latents)
    return case.input, case.codebook, torch.tensor(0.8, dtype=torch.float64)


def outputs(backend, is_logits=False, **options):
    """z or logits, codebook and temperature to quantized, kl and weights."""
    quantize = gumbel_quantize_logits if is_logits else gumbel_quantize

    def run(input, codebook, temperature):
        given = {"temperature": temperature, "seed": 5, "return_weights": True, "backend": backend} | options
        result = quantize(input, codebook, **given)
        return result.quantized, result.kl, result.weights

    return run


def loss_of(run):
    """A number in which every output has a part, and not linearly."""

    def loss(*tensors):
        quantized, kl, weights = run(*tensors)
        return quantized.sin().sum() + kl.square().sum() + (weights * weights.cumsum(-1)).sum()

    return loss


def leaves(*tensors):
    return tuple(tensor.detach().clone().requires_grad_() for tensor in tensors)


def slope(function, tensor, direction, step=1e-5):
    """The derivative along a direction, by central differences."""
    return (function(tensor + step * direction) - function(tensor - step * direction)) / (2 * step)


@pytest.mark.parametrize(("is_logits", "latents"), [(False, 0), (False, 2), (True, 2)])
def test_second_derivatives(served, is_logits, latents):
    """Of every output by every input and by what comes in: numerically, from first derivatives."""
    tensors = leaves(*double_case(is_logits, latents))
    assert torch.autograd.gradgradcheck(outputs(served, is_logits), tensors, atol=1e-6)


@pytest.mark.parametrize("asked", ["z", "codebook", "temperature"])
def test_a_penalty_on_any_gradient_reaches_everything(served, asked):
    """Also where other gradients than the penalised one were not asked for."""
    tensors = leaves(*double_case())
    place = ("z", "codebook", "temperature").index(asked)

    def penalty(*tensors):
        (gradient,) = torch.autograd.grad(
            loss_of(outputs(served))(*tensors), tensors[place], create_graph=True
        )
        return gradient.square().sum()

    found = torch.autograd.grad(penalty(*tensors), tensors)
    for i, gradient in enumerate(found):
        direction = torch.randn(tensors[i].shape, dtype=torch.float64, generator=torch.manual_seed(i))

        def along(tensor, i=i):
            return penalty(*(tensor.requires_grad_() if j == i else leaf for j, leaf in enumerate(tensors)))

        expected = slope(along, tensors[i].detach(), direction)
        torch.testing.assert_close((gradient * direction).sum(), expected, rtol=1e-5, atol=1e-7)


def test_a_hessian_is_not_zero(served):
    z, codebook, _ = double_case()
    sum_of_squares = lambda z: gumbel_quantize(z, codebook, seed=1, backend=served).quantized.square().sum()  # noqa: E731
    hessians = [
        torch.autograd.functional.hessian(sum_of_squares, z),
        torch.autograd.functional.hessian(sum_of_squares, z, vectorize=True),
        func.hessian(sum_of_squares)(z),
        func.jacrev(func.jacrev(sum_of_squares))(z),
        func.jacfwd(func.jacfwd(sum_of_squares))(z),
    ]
    assert hessians[0].abs().max() > 1e-3
    direction = torch.ones_like(z)
    gradient = func.grad(sum_of_squares)
    expected = slope(gradient, z, direction)
    for hessian in hessians:
        torch.testing.assert_close(hessian @ direction, expected, rtol=1e-6, atol=1e-8)


def test_a_third_derivative(served):
    z, codebook, _ = double_case()
    f = lambda z: gumbel_quantize(z, codebook, seed=1, backend=served).quantized.sum()  # noqa: E731
    (z,) = leaves(z)
    (first,) = torch.autograd.grad(f(z), z, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), z, create_graph=True)
    (third,) = torch.autograd.grad(second.sum(), z)
    (second_of_first,) = torch.autograd.grad(func.grad(f)(z).sum(), z)
    torch.testing.assert_close(second, second_of_first)
    curvature = lambda z: func.jvp(func.grad(f), (z,), (torch.ones_like(z),))[1]  # noqa: E731
    torch.testing.assert_close(third, slope(curvature, z.detach(), torch.ones_like(z)), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("hard", [False, True])
def test_kernels_and_reference_agree_on_second_derivatives(cpu_backend, estimator, hard):
    found = []
    for backend in (cpu_backend, "reference"):
        tensors = leaves(*double_case())
        run = loss_of(outputs(backend, estimator=estimator, hard=hard))
        first = torch.autograd.grad(run(*tensors), tensors, create_graph=True)
        second = torch.autograd.grad(sum(g.sin().sum() for g in first), tensors, allow_unused=True)
        found.append((*first, *second))
    for of_kernel, of_reference in zip(*found, strict=True):
        assert (of_kernel is None) == (of_reference is None)
        if of_kernel is not None:
            torch.testing.assert_close(of_kernel, of_reference, rtol=1e-7, atol=1e-9)


def test_a_loss_with_a_gradient_penalty_trains(served):
    z, codebook = leaves(*double_case()[:2])
    optimizer = torch.optim.SGD([z, codebook], 0.05)
    losses = []
    for _ in range(30):
        quantized = gumbel_quantize(z, codebook, seed=3, backend=served).quantized
        (gradient,) = torch.autograd.grad(quantized.sum(), z, create_graph=True)
        loss = (quantized - 1).square().mean() + 0.1 * gradient.square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("is_logits", [False, True])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_forward_mode(served, is_logits, place):
    tensors = double_case(is_logits)
    run = outputs(served, is_logits)
    direction = torch.randn(tensors[place].shape, dtype=torch.float64, generator=torch.manual_seed(1))

    def along(tensor):
        return torch.cat([x.flatten() for x in run(*tensors[:place], tensor, *tensors[place + 1 :])])

    expected = slope(along, tensors[place], direction)
    _, tangent = func.jvp(along, (tensors[place],), (direction,))
    torch.testing.assert_close(tangent, expected, rtol=1e-6, atol=1e-8)
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(along(forward_ad.make_dual(tensors[place], direction))).tangent
    torch.testing.assert_close(tangent, expected, rtol=1e-6, atol=1e-8)


def test_forward_mode_of_the_nearest_code(served):
    z, codebook, _ = double_case()
    _, tangent = func.jvp(lambda z: nearest_quantize(z, codebook, backend=served).quantized, (z,), (z.sin(),))
    torch.testing.assert_close(tangent, z.sin())


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("dim", [0, 1, 2])
def test_vmap_is_the_call_on_the_whole(served, estimator, dim):
    """Whichever dimension is mapped, rows are counted in C order of the whole."""
    z, codebook = torch.randn(3, 4, 5), torch.randn(6)

    def run(z):
        return gumbel_quantize(z, codebook, seed=7, row_offset=2, estimator=estimator, backend=served)[:3]

    for got, expected in zip(func.vmap(run, dim, dim)(z), run(z), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_vmap_within_vmap_and_of_logits(served):
    logits, codebook = torch.randn(3, 4, 5, 6), torch.randn(6)
    run = lambda x: gumbel_quantize_logits(x, codebook, seed=7, backend=served).indices  # noqa: E731
    for dims in ((0, 0), (1, 1), (2, 0)):
        got = func.vmap(func.vmap(run, dims[1], dims[1]), dims[0], dims[0])(logits)
        assert torch.equal(got, run(logits))


def test_vmap_of_latents(served):
    z, codebook = torch.randn(5, 4, 3), torch.randn(3, 6)
    run = lambda z: gumbel_quantize(z, codebook, seed=7, backend=served).indices  # noqa: E731
    for dim in (0, 1):
        assert torch.equal(func.vmap(run, dim, dim)(z), run(z))
    behind = z.movedim(1, 2)  # samples lie behind the latents: these still vary fastest
    assert torch.equal(func.vmap(run, 2, 1)(behind), run(z))


def test_vmap_over_codebooks_seeds_and_temperatures(served):
    z, books = torch.randn(7), torch.randn(3, 6)
    whole = gumbel_quantize(z.expand(3, 7).T, books, seed=2, backend=served)  # another count of rows
    got = func.vmap(lambda book: gumbel_quantize(z, book, seed=2, backend=served).kl)(books)
    torch.testing.assert_close(got, whole.kl.T, rtol=1e-5, atol=1e-6)
    seeds, temperatures = torch.tensor([3, 4]), torch.tensor([0.5, 2.0])
    got = func.vmap(
        lambda s, t: gumbel_quantize(z, books[0], seed=s, temperature=t, backend=served).quantized
    )(seeds, temperatures)
    for i in range(2):
        alone = gumbel_quantize(
            z, books[0], seed=seeds[i], temperature=temperatures[i], row_offset=7 * i, backend=served
        )
        torch.testing.assert_close(got[i], alone.quantized, rtol=1e-5, atol=1e-5)


def test_gradients_of_single_samples(served):
    z, codebook = torch.randn(4, 5, dtype=torch.float64), torch.randn(6, dtype=torch.float64)

    def loss(codebook, z, row_offset=0):
        result = gumbel_quantize(z, codebook, seed=2, row_offset=row_offset, backend=served)
        return result.quantized.square().sum() + result.kl.sum()

    got = func.vmap(func.grad(loss), in_dims=(None, 0))(codebook, z)
    expected = torch.stack([func.grad(loss)(codebook, z[i], 5 * i) for i in range(4)])
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("transform", [func.jacrev, func.jacfwd])
def test_jacobians(served, transform):
    z, codebook, _ = double_case()
    run = lambda c: gumbel_quantize(z, c, seed=2, backend=served).quantized  # noqa: E731
    got = transform(run)(codebook)
    columns = [slope(run, codebook, row) for row in torch.eye(len(codebook), dtype=torch.float64)]
    torch.testing.assert_close(got, torch.stack(columns, -1), rtol=1e-6, atol=1e-8)


def test_batched_gradients(served):
    z, codebook, _ = double_case()
    (z,) = leaves(z)
    quantized = gumbel_quantize(z, codebook, seed=2, backend=served).quantized
    seeds = torch.eye(len(z), dtype=torch.float64)
    (got,) = torch.autograd.grad(quantized, z, seeds, is_grads_batched=True, retain_graph=True)
    expected = [torch.autograd.grad(quantized, z, seed, retain_graph=True)[0] for seed in seeds]
    torch.testing.assert_close(got, torch.stack(expected))


def test_functionalize(served):
    z, codebook, _ = double_case()
    run = lambda z: gumbel_quantize(z, codebook, seed=2, backend=served).quantized  # noqa: E731
    torch.testing.assert_close(func.functionalize(run)(z), run(z))


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:`torch.jit.trace")
def test_jit_trace_would_freeze_the_noise(served):
    z, codebook = torch.randn(5), torch.randn(4)
    with pytest.raises(RuntimeError, match=r"seed must be given under torch\.jit\.trace.*torch\.export"):
        torch.jit.trace(lambda z: gumbel_quantize(z, codebook, backend=served).quantized, z)
    traced = torch.jit.trace(lambda z: gumbel_quantize(z, codebook, seed=1, backend=served).quantized, z)
    other = torch.randn(5)
    expected = gumbel_quantize(other, codebook, seed=1, backend=served).quantized
    torch.testing.assert_close(traced(other), expected, rtol=1e-5, atol=1e-5)


def test_gumbel_noise_by_any_backend(served):
    a = gumbel_noise(3, 5, 6, backend=served)
    torch.testing.assert_close(a, gumbel_noise(3, 5, 6), rtol=2e-6, atol=2e-6)
    with pytest.raises(ValueError, match="backend must be None or one of"):
        gumbel_noise(3, 5, 6, backend="other")
