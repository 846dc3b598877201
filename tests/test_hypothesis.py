"""Shapes and strides of all kinds: views give what their contiguous copies give, and that is the truth."""

import math

import torch
from cases import DTYPES, Case, assert_same, check_forward, compute_dtype, generator
from gradcases import leaf
from hypothesis import given
from hypothesis import strategies as st

import fqvae_kernels


@st.composite
def views(draw, last=None):
    """A recipe for a view: how a tensor of 0 to 4 dimensions lies in memory. last: its last size."""
    sizes = [0, 1, 1, 2, 3, 5]
    lead = draw(st.lists(st.sampled_from(sizes), max_size=3))
    shape = (*lead, last) if last is not None else tuple(lead)
    order = draw(st.permutations(range(len(shape))))
    steps = [draw(st.sampled_from([1, 1, 2, 3])) for _ in shape]
    expanded = [draw(st.sampled_from([False, False, False, True])) for _ in shape]
    start = draw(st.integers(0, 2))
    return shape, order, steps, expanded, start


def build(recipe, dtype, random) -> torch.Tensor:
    """The view that the recipe describes, filled with random numbers."""
    shape, order, steps, expanded, start = recipe
    held = [1 if grow else size for size, grow in zip(shape, expanded, strict=True)]
    # Laid out in another order, with steps, some way into the storage.
    stored = [held[axis] * steps[axis] for axis in order]
    flat = torch.randn(start + math.prod(stored), generator=random, dtype=torch.float64).to(dtype)
    view = flat[start:].reshape(stored).permute([order.index(axis) for axis in range(len(order))])
    for axis, step in enumerate(steps):
        view = view[(slice(None),) * axis + (slice(None, None, step),)]
    return view.expand(shape)


options = {
    "codes": st.one_of(st.integers(1, 9), st.integers(15, 18), st.integers(63, 67)),
    "dtype": st.sampled_from(DTYPES),
    "hard": st.booleans(),
    "temperature": st.sampled_from([0.05, 0.5, 2.0]),
    "seed": st.integers(0, 2**64 - 1),
    "row_offset": st.sampled_from([0, 1, 2**32 - 2, 2**40]),
}


def contiguous(tensor):
    return tensor.clone(memory_format=torch.contiguous_format)


def compare(case: Case, backend):
    result = case.call(backend, return_weights=True)
    check_forward(case, result, weights=True)
    copy = case.but(input=contiguous(case.input), codebook=contiguous(case.codebook))
    for value, expected in zip(result, copy.call(backend, return_weights=True), strict=True):
        assert_same(value, expected, backend, str(case))


@given(recipe=views(), **options)
def test_views_of_z(backend, recipe, codes, dtype, **rest):
    random = generator(1)
    book = torch.randn(codes, generator=random, dtype=compute_dtype(dtype))
    compare(Case(build(recipe, dtype, random), book, **rest), backend)


@given(data=st.data(), latents=st.integers(1, 6), **options)
def test_views_of_z_and_a_codebook_per_latent(backend, data, latents, codes, dtype, **rest):
    random = generator(2)
    z = build(data.draw(views(last=latents)), dtype, random)
    book = torch.randn(codes, latents, generator=random, dtype=compute_dtype(dtype)).t()
    compare(Case(z, book, **rest), backend)


@given(data=st.data(), **options)
def test_views_of_logits(backend, data, codes, dtype, **rest):
    random = generator(3)
    logits = build(data.draw(views(last=codes)), dtype, random)
    book = torch.randn(codes, generator=random, dtype=compute_dtype(dtype))
    compare(Case(logits, book, is_logits=True, **rest), backend)


@given(recipe=views(), **options)
def test_gradients_through_views(backend, recipe, codes, dtype, **rest):
    """z and the gradient of quantized both lie strangely in memory."""
    random = generator(4)
    shape, order, *_ = recipe
    z = build(recipe, dtype, random).detach()
    book = torch.randn(codes, generator=random, dtype=compute_dtype(dtype))
    gradient = build((shape, order, [2] * len(shape), [False] * len(shape), 1), dtype, random)
    case = Case(z, book, **rest)

    def gradients(input, gradient):
        codebook = leaf(book)
        input.requires_grad_()
        case.call(backend, input=input, codebook=codebook).quantized.backward(gradient)
        return input.grad, codebook.grad

    strange = gradients(z.clone(memory_format=torch.preserve_format), gradient)
    plain = gradients(contiguous(z), contiguous(gradient))
    for value, expected in zip(strange, plain, strict=True):
        assert_same(value, expected, backend, str(case))


@given(recipe=views(), codes=options["codes"], dtype=options["dtype"])
def test_nearest_of_views(backend, recipe, codes, dtype):
    random = generator(5)
    z = build(recipe, dtype, random)
    book = torch.randn(codes, generator=random, dtype=compute_dtype(dtype))
    result = fqvae_kernels.nearest_quantize(z, book, backend=backend)
    expected = fqvae_kernels.nearest_quantize(contiguous(z), book, backend=backend)
    assert torch.equal(result.indices, expected.indices) and torch.equal(result.quantized, expected.quantized)
