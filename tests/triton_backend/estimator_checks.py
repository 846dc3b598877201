"""straight_through and reinmax on backend "triton" against definitions in float64."""

import numpy as np
import torch
import truth
from cases import compute_dtype, double, output_gradients, rounding
from gradcases import leaf, weighted_sum

ESTIMATORS = ("straight_through", "reinmax")


def row_uniform(seed: int, rows: int, row_offset: int) -> np.ndarray:
    """One number a row: output 0 of Philox with counter (0, 1, n low, n high)."""
    numbers = [(row_offset + i) % 2**64 for i in range(rows)]
    low, high = (np.array([(n >> s) & 0xFFFFFFFF for n in numbers], dtype=np.uint64) for s in (0, 32))
    words = truth.philox4x32((np.uint64(0), np.uint64(1), low, high), (seed % 2**32, seed >> 32))
    return truth.uniform(words[0])


def boundaries(case) -> np.ndarray:
    """q[0] + ... + q[k] of each row, (rows, codes)."""
    posterior = case.true_forward().posterior
    return np.cumsum(posterior, axis=1)


def check_indices(case, indices: torch.Tensor) -> None:
    """The smallest k with q[0] + ... + q[k] > u, but where u lies within 2e-6 of a boundary; q[k] > 0."""
    index = indices.reshape(-1).numpy()
    assert ((index >= 0) & (index < case.codes)).all()
    ends, u = boundaries(case), row_uniform(case.seed, case.rows, case.row_offset)
    good = np.isfinite(ends[:, -1])
    rows = np.arange(case.rows)
    end = ends[rows, index]
    begin = np.where(index > 0, ends[rows, np.maximum(index - 1, 0)], 0.0)
    unit = 2e-6 if compute_dtype(case.dtype) == torch.float32 else 1e-12
    wrong = good & ~((begin - unit <= u) & (u < end + unit))
    assert not wrong.any(), f"row {wrong.argmax()}: u {u[wrong.argmax()]} is not in its code's share\n{case}"
    assert (case.true_forward().posterior[rows, index][good] > 0).all(), f"a code of weight 0\n{case}"


def results(case, backend, estimator, given, dtype=None, **options):
    """Outputs, and gradients of input, codebook and temperature; dtype: taken in place of the case's own."""
    input, codebook = case.input, case.codebook
    if dtype is not None:
        input, codebook = input.to(dtype), codebook.to(dtype)
    leaves = leaf(input), leaf(codebook), leaf(torch.tensor(case.temperature, dtype=torch.float64))
    out = case.call(
        backend,
        input=leaves[0],
        codebook=leaves[1],
        temperature=leaves[2],
        estimator=estimator,
        return_weights=True,
        **options,
    )
    loss = weighted_sum((out.quantized, out.kl, out.weights), given)
    gradients = torch.autograd.grad(loss, leaves, allow_unused=True)
    return out, gradients


def check_estimator(case, backend, estimator, subset=(True, True, True)) -> None:
    """Outputs and gradients against the definitions, whose sums the reference takes in float64."""
    given = [g if use else None for g, use in zip(output_gradients(case), subset, strict=True)]
    got, gradients = results(case, backend, estimator, given)
    expected, true = results(case, "reference", estimator, given, torch.float64)
    check_indices(case, got.indices)
    assert torch.equal(got.indices, expected.indices), "choose another seed: u lies at a boundary"
    bad = torch.isnan(expected.kl)
    picked = torch.where(bad, torch.nan, expected.quantized).to(case.dtype)
    torch.testing.assert_close(got.quantized, picked, rtol=0, atol=0, equal_nan=True)
    one_hot = torch.nn.functional.one_hot(got.indices, case.codes).to(case.dtype)
    one_hot = torch.where(bad.unsqueeze(-1), torch.nan, one_hot)
    torch.testing.assert_close(got.weights, one_hot, rtol=0, atol=0, equal_nan=True)
    bound = 1e-11 if case.dtype == torch.float64 else 1e-5
    torch.testing.assert_close(got.kl.double(), expected.kl, rtol=bound, atol=bound, equal_nan=True)
    for name, value, other in zip(("input", "codebook", "temperature"), gradients, true, strict=True):
        if value is None or other is None:  # of one that enters no output of the loss
            assert all(g is None or not g.any() for g in (value, other)), f"no gradient of {name}\n{case}"
            continue
        scale = max(1.0, double(other).__abs__().max(initial=0.0))
        allowed = bound * max(1.0, 0.2 / case.temperature) * scale
        if name == "input":
            allowed = allowed + rounding(case.dtype, other)
        error = np.abs(double(value) - double(other))
        assert (error <= allowed).all(), f"{estimator}, {name}: error {error.max()}\n{case}"
