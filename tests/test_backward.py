"""Gradients against the float64 truth and against a naive implementation in the same dtype."""

import itertools
import random

import pytest
import torch
from cases import DTYPES, assert_same, make, output_gradients
from gradcases import (
    assert_gradients,
    check_temperatures_near_zero,
    gradient_bound,
    leaf,
    library_gradients,
    naive_gradients,
    stored_rounding,
    worst_error,
)
from test_forward import CODES, ROWS, TEMPERATURES, cluster_case, divisor, far_case

from fqvae_kernels import backends

SUBSETS = [s for s in itertools.product((False, True), repeat=3) if any(s)]


def modes(codes: int):
    """Every (dtype, hard, per latent, logits), with a temperature and outputs for the loss; endless."""
    every = list(itertools.product(DTYPES, (False, True), (False, True), (False, True)))
    draw = random.Random(codes)
    draw.shuffle(every)
    return ((mode, draw.choice(TEMPERATURES), draw.choice(SUBSETS)) for mode in itertools.cycle(every))


def chosen(gradients, subset):
    return [g if use else None for g, use in zip(gradients, subset, strict=True)]


@pytest.mark.parametrize("codes", CODES)
def test_grid(backend, codes):
    mode = modes(codes)
    for rows in ROWS:
        for _ in range(3):
            (dtype, hard, per_latent, is_logits), temperature, subset = next(mode)
            case = make(
                rows,
                codes,
                dtype=dtype,
                latents=divisor(rows) if per_latent else 0,
                is_logits=is_logits,
                temperature=temperature,
                hard=hard,
                seed=codes,
                row_offset=2**32 - 5,
            )
            given = chosen(output_gradients(case), subset)
            assert_gradients(case, library_gradients(case, backend, *given), case.true_gradients(*given))


@pytest.mark.parametrize(
    "requires", SUBSETS, ids=lambda s: "-".join(n for n, u in zip("zmt", s, strict=False) if u)
)
def test_every_subset_of_requires_grad(backend, requires):
    """For every set of outputs in the loss; what is not required gets no gradient."""
    for subset, hard, latents, is_logits in itertools.product(SUBSETS, (False, True), (0, 3), (False, True)):
        case = make(18, 11, latents=latents, is_logits=is_logits, hard=hard, temperature=0.6)
        given = chosen(output_gradients(case), subset)
        got = library_gradients(case, backend, *given, requires=requires)
        for gradient, required in zip(got, requires, strict=True):
            assert required or gradient is None
        true = case.true_gradients(*given)
        whole = (torch.from_numpy(true.input), torch.from_numpy(true.codebook).float(), true.temperature)
        filled = [
            g if required else torch.as_tensor(t, dtype=d)
            for g, required, t, d in zip(
                got, requires, whole, (case.dtype, case.codebook.dtype, torch.float64), strict=True
            )
        ]
        assert_gradients(case, filled, true)


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_no_worse_than_naive_in_the_same_dtype(backend, dtype, hard):
    """Error at most the naive formula's, plus 4e-6 max(1, 0.2/tau) of the scale, plus the storing's."""
    for codes, temperature, is_logits in itertools.product((5, 64, 130), (0.1, 0.7, 3.0), (False, True)):
        case = make(200, codes, dtype=dtype, temperature=temperature, hard=hard, is_logits=is_logits)
        given = output_gradients(case)
        true = case.true_gradients(*given)
        ours = worst_error(case, library_gradients(case, backend, *given), true)
        naive = worst_error(case, naive_gradients(case, *given), true)
        for name, our, theirs, stored in zip("zmt", ours, naive, stored_rounding(case), strict=True):
            assert our <= theirs + gradient_bound(case) + stored, (
                f"{name}: error {our} against {theirs}\n{case}"
            )


def tensor_inputs(case):
    """z, codebook and temperature as float64 leaves."""
    return (
        leaf(case.input.double()),
        leaf(case.codebook.double()),
        leaf(torch.tensor(case.temperature, dtype=torch.float64)),
    )


@pytest.mark.parametrize("is_logits", [False, True])
@pytest.mark.parametrize("latents", [0, 3])
def test_gradcheck(backend, is_logits, latents):
    for codes in (1, 2, 5):
        case = make(6, codes, dtype=torch.float64, is_logits=is_logits, latents=latents, temperature=0.8)

        def outputs(input, codebook, temperature, case=case):
            result = case.call(
                backend, input=input, codebook=codebook, temperature=temperature, return_weights=True
            )
            return result.quantized, result.kl, result.weights

        assert torch.autograd.gradcheck(outputs, tensor_inputs(case))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("hard", [False, True])
def test_far_z(backend, dtype, hard):
    """Finite gradients, and the right ones, for finite z of any size."""
    for codes, temperature in itertools.product((1, 2, 5, 64, 67), (0.01, 0.7, 100.0)):
        case = far_case(dtype, codes, temperature=temperature, hard=hard)
        given = output_gradients(case)
        assert_gradients(case, library_gradients(case, backend, *given), case.true_gradients(*given))


@pytest.mark.parametrize("estimator", ["gumbel", "straight_through"])
def test_sums_over_a_large_codebook_keep_their_digits(backend, estimator):
    """One sum of 100,000 terms after the other, in float32, would be off by 1e-4 and more."""
    if backend == "cpu" and backends.cpu.native().instruction_set() == "device":
        pytest.skip("a thread of CUDA never sums up so many codes: they come in parts")
    case = make(8, 100_000, temperature=0.7, estimator=estimator)
    given = output_gradients(case)
    assert_gradients(case, library_gradients(case, backend, *given), case.true_gradients(*given))


@pytest.mark.parametrize("falling", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_far_z_before_a_cluster_of_codes(backend, dtype, falling):
    for temperature in (0.01, 0.7, 100.0):
        case = cluster_case(dtype, falling, temperature=temperature)
        given = output_gradients(case)
        assert_gradients(case, library_gradients(case, backend, *given), case.true_gradients(*given))


@pytest.mark.parametrize("scale", [1e2, 1e4])
def test_wide_codebooks(backend, scale):
    for codes, temperature, dtype in itertools.product(
        (3, 17, 64), (0.01, 0.7, 100.0), (torch.float32, torch.float64)
    ):
        case = make(40, codes, dtype=dtype, scale=scale, temperature=temperature)
        given = output_gradients(case)
        assert_gradients(case, library_gradients(case, backend, *given), case.true_gradients(*given))


def test_temperatures_near_zero(backend):
    check_temperatures_near_zero(backend)


def test_equal_codes(backend):
    for codes in (2, 9, 64):
        case = make(50, codes, temperature=0.3)
        case = case.but(codebook=torch.full_like(case.codebook, 0.75))
        given = output_gradients(case)
        got = library_gradients(case, backend, *given)
        assert_gradients(case, got, case.true_gradients(*given))
        without = library_gradients(case, backend, given[0], given[1], None)
        assert without[0].abs().max() <= 1e-5, "nothing pulls at z when all codes are equal"


@pytest.mark.parametrize("is_logits", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_bad_rows_pass_no_gradient(backend, dtype, is_logits):
    """NaN and infinity: zero to their own z, nothing to the codebook and the temperature.

    What comes back to such rows is NaN as well, since their outputs are.
    """
    for codes in (3, 64, 67):
        case = make(40, codes, dtype=dtype, is_logits=is_logits, temperature=0.5)
        input = case.input.clone()
        bad = [2, 16, 39]
        for row, value in zip(bad, (float("nan"), float("inf"), -float("inf")), strict=True):
            # One NaN or +inf spoils a row of logits; -inf does only if there is nothing else.
            input[(row, 0) if is_logits and row != 39 else row] = value
        case = case.but(input=input)
        given = output_gradients(case)
        for gradient in given:
            gradient[bad] = float("nan")
        got = library_gradients(case, backend, *given)
        assert (got[0][bad] == 0).all()
        assert_gradients(case, got, case.true_gradients(*given))


@pytest.mark.parametrize("dtype", DTYPES)
def test_masked_codes(backend, dtype):
    case = make(30, 9, dtype=dtype, is_logits=True, temperature=0.7)
    logits = case.input.clone()
    logits[:, 4] = -float("inf")
    logits[::3, 8] = -float("inf")
    case = case.but(input=logits)
    given = output_gradients(case)
    got = library_gradients(case, backend, *given)
    assert (got[0][:, 4] == 0).all()
    assert_gradients(case, got, case.true_gradients(*given))


def gradients_of(case, backend, input, codebook, a, h, v):
    """Gradients of leaves input and codebook after views of the caller's making."""
    result = case.call(backend, input=input, codebook=codebook, return_weights=True)
    torch.autograd.backward((result.quantized, result.kl, result.weights), (a, h, v))


def test_strided_inputs_and_gradients(backend):
    """Transposed, stepped, expanded tensors give what their contiguous copies give."""
    case = make(24, 7, latents=4, temperature=0.4)
    a, h, v = output_gradients(case)
    plain, book = leaf(case.input), leaf(case.codebook)
    gradients_of(case, backend, plain, book, a, h, v)

    turned, turned_book = leaf(case.input.t().contiguous()), leaf(case.codebook.t().contiguous())
    stepped = [torch.zeros(*g.shape, 2, dtype=g.dtype)[..., 0] for g in (a, h, v)]
    for holder, value in zip(stepped, (a, h, v), strict=True):
        holder.copy_(value)
    assert not turned.t().is_contiguous() and not stepped[0].is_contiguous()
    gradients_of(case, backend, turned.t(), turned_book.t(), *stepped)
    assert_same(turned.grad.t(), plain.grad, backend, "z")
    assert_same(turned_book.grad.t(), book.grad, backend, "codebook")


def test_expanded_inputs_and_gradients(backend):
    case = make(12, 5, temperature=0.4)
    single, book = leaf(torch.tensor(0.3)), leaf(torch.tensor(0.5))
    expanded = case.call(backend, input=single.expand(12), codebook=book.expand(5), return_weights=True)
    (expanded.quantized.sum() + expanded.kl.sum() + expanded.weights.sum()).backward()
    z, m = leaf(torch.full((12,), 0.3)), leaf(torch.full((5,), 0.5))
    plain = case.call(backend, input=z, codebook=m, return_weights=True)
    ones = torch.ones(12)
    torch.autograd.backward((plain.quantized, plain.kl, plain.weights), (ones, ones, torch.ones(12, 5)))
    assert torch.equal(expanded.quantized, plain.quantized)
    torch.testing.assert_close(single.grad, z.grad.sum())
    torch.testing.assert_close(book.grad, m.grad.sum())


@pytest.mark.parametrize("book_dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_codebook_gradient_has_the_codebooks_dtype(backend, book_dtype):
    for dtype in DTYPES:
        case = make(30, 6, dtype=dtype, temperature=0.8)
        case = case.but(codebook=case.codebook.to(book_dtype))
        given = output_gradients(case)
        got = library_gradients(case, backend, *given)
        # float64 arithmetic, but a gradient stored in float32
        bound = 1e-7 if dtype == torch.float64 and book_dtype == torch.float32 else None
        assert_gradients(case, got, case.true_gradients(*given), bound)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_temperature_gradient_has_the_temperatures_dtype(backend, dtype):
    case = make(30, 6, temperature=0.5)
    temperature = leaf(torch.tensor(0.5, dtype=dtype))
    case.call(backend, temperature=temperature).quantized.sum().backward()
    true = case.true_gradients(torch.ones(30))
    assert temperature.grad.dtype == dtype and temperature.grad.shape == ()
    assert abs(temperature.grad.item() - true.temperature) <= 1e-5 * max(1.0, true.temperature_size)


def test_backward_twice_gives_the_same(backend):
    case = make(20, 6)
    z, book = leaf(case.input), leaf(case.codebook)
    result = case.call(backend, input=z, codebook=book)
    loss = (result.quantized + result.kl).sum()
    first = torch.autograd.grad(loss, (z, book), retain_graph=True)
    second = torch.autograd.grad(loss, (z, book))
    assert all(torch.equal(x, y) for x, y in zip(first, second, strict=True))


@pytest.mark.parametrize("which", ["seed", "temperature", "input", "codebook"])
def test_backward_is_not_fooled_by_changes_in_place(backend, which):
    """A tensor changed before the backward pass: the forward's value counts, or PyTorch raises its error."""
    case = make(20, 6, temperature=0.5, seed=77)
    given = {
        "seed": torch.tensor(77),
        "temperature": torch.tensor(0.5),
        "input": case.input.clone(),
        "codebook": case.codebook.clone(),
    }
    z = leaf(case.input)
    # Not leaves, so that they may be changed in place.
    given["input"] = z * 1.0
    book = leaf(case.codebook)
    given["codebook"] = book * 1.0
    a, h, _ = output_gradients(case)
    result = case.call(backend, **given)
    with torch.no_grad():
        given[which].add_(1)
    try:
        torch.autograd.backward((result.quantized, result.kl), (a, h))
    except RuntimeError as error:
        if "modified by an inplace operation" not in str(error):
            raise
        return
    assert_gradients(case, (z.grad, book.grad, None), ignoring_temperature(case.true_gradients(a, h)))


def ignoring_temperature(true):
    true.temperature = 0.0
    return true


def test_no_graph_without_a_need(backend):
    case = make(10, 4)
    assert not case.call(backend, return_weights=True).quantized.requires_grad
    with torch.no_grad():
        assert not case.call(backend, input=leaf(case.input)).quantized.requires_grad
    result = case.call(backend, input=leaf(case.input), return_weights=True)
    assert result.quantized.requires_grad and result.kl.requires_grad and result.weights.requires_grad
    assert not result.indices.requires_grad


def test_inference_mode(backend):
    case = make(10, 4)
    with torch.inference_mode():
        inside = case.call(backend)
    assert torch.equal(inside.quantized, case.call(backend).quantized)


@pytest.mark.parametrize("codes", [1, 16, 67])
def test_gradient_of_a_row_does_not_depend_on_its_neighbours(backend, codes):
    case = make(100, codes, temperature=0.4)
    given = output_gradients(case)
    whole = library_gradients(case, backend, *given)[0]
    for row in (0, 1, 15, 16, 96, 99):
        part = [g[row : row + 1] for g in given]
        one = library_gradients(case.but(input=case.input[row : row + 1], row_offset=row), backend, *part)[0]
        assert_same(one[0], whole[row], backend, row)


def test_gradients_of_many_codes(backend):
    """A float32 sum of 65,536 terms may be off by more than one of 1,000: the bound is that of outputs."""
    case = make(3, 65536, temperature=0.5)
    given = output_gradients(case)
    got = library_gradients(case, backend, *given)
    assert_gradients(case, got, case.true_gradients(*given), case.tolerance)
