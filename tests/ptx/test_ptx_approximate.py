"""Approximate instructions: nearly exact without jitter; with it, off by the documented error and no more."""

import numpy as np
import pytest

from .snippets import run_each

COUNT = 4000


def ulp(x):
    return np.spacing(np.maximum(np.abs(x), np.finfo(np.float32).tiny).astype(np.float32)).astype(np.float64)


def numbers(low, high):
    """COUNT float32 between low and high, spread evenly over the exponents if both are positive."""
    generator = np.random.default_rng(11)
    if low > 0:
        return np.exp(generator.uniform(np.log(low), np.log(high), COUNT)).astype(np.float32)
    return generator.uniform(low, high, COUNT).astype(np.float32)


def lg2_bound(x, exact):
    return np.where((x > 0.5) & (x < 2), 2.0**-22, 2.0**-22 * np.abs(exact))


# Instruction: operands, the function, the error that the PTX ISA documents.
INSTRUCTIONS = {
    "ex2.approx.f32": (numbers(-126, 127), np.exp2, lambda x, exact: 2 * ulp(exact)),
    "ex2.approx.ftz.f32": (numbers(-120, 127), np.exp2, lambda x, exact: 2 * ulp(exact)),
    "lg2.approx.f32": (numbers(1e-3, 1e3), np.log2, lg2_bound),
    "lg2.approx.ftz.f32": (numbers(0.45, 2.2), np.log2, lg2_bound),
    "rcp.approx.f32": (numbers(1e-30, 1e30), np.reciprocal, lambda x, exact: ulp(exact)),
    "sqrt.approx.f32": (numbers(1e-30, 1e30), np.sqrt, lambda x, exact: 2.0**-23 * exact),
    "rsqrt.approx.f32": (numbers(1e-30, 1e30), lambda x: 1 / np.sqrt(x), lambda x, exact: 2.0**-22.9 * exact),
    "sin.approx.f32": (numbers(-np.pi, np.pi), np.sin, lambda x, exact: 2.0**-20.9),
    "cos.approx.f32": (numbers(-np.pi, np.pi), np.cos, lambda x, exact: 2.0**-20.9),
    "tanh.approx.f32": (numbers(-8, 8), np.tanh, lambda x, exact: 2.0**-11 * np.abs(exact)),
    "div.approx.f32": (numbers(1e-30, 1e30), lambda x: 3 / x, lambda x, exact: 2 * ulp(exact)),
    "div.full.f32": (numbers(1e-30, 1e38), lambda x: 3 / x, lambda x, exact: 2 * ulp(exact)),
}


def run(jitter, seed):
    """The errors of every instruction, in units of its bound."""
    every = np.concatenate([x for x, _, _ in INSTRUCTIONS.values()]).view(np.uint32).astype(np.uint64)
    three = np.full(len(every), np.float32(3).view(np.uint32), np.uint64)
    texts = [f"{name} d32, {'a32, b32' if name.startswith('div') else 'b32'}" for name in INSTRUCTIONS]
    results = run_each(texts, np.stack([three, every, every], 1), jitter=jitter, seed=seed)
    errors = {}
    for i, (name, (x, function, bound)) in enumerate(INSTRUCTIONS.items()):
        bits = results[i, i * COUNT : (i + 1) * COUNT].astype(np.uint32)
        exact = function(x.astype(np.float64))
        errors[name] = (bits.view(np.float32).astype(np.float64) - exact) / bound(x, exact)
    return errors


@pytest.fixture(scope="module")
def errors():
    return {jitter: run(jitter, seed=3) for jitter in (0, 1)}


@pytest.mark.parametrize("instruction", INSTRUCTIONS)
def test_without_jitter_rounded_once(instruction, errors):
    x, function, bound = INSTRUCTIONS[instruction]
    exact = function(x.astype(np.float64))
    assert np.all(np.abs(errors[0][instruction]) * bound(x, exact) <= 0.5000001 * ulp(exact))


@pytest.mark.parametrize("instruction", INSTRUCTIONS)
def test_jitter_moves_within_the_documented_error(instruction, errors):
    moved = errors[1][instruction]
    assert np.max(np.abs(moved)) <= 1 + 1e-9
    # Both ways and far; where the bound is about an ulp, the last float within it is often well short of it.
    assert np.quantile(moved, 0.9) > 0.4 and np.quantile(moved, 0.1) < -0.4
    assert np.mean(moved != errors[0][instruction]) > 0.3


def test_approximate_division_by_large_numbers_gives_zero():
    pairs = [(1e38, 1e38), (-1e38, 1e38), (np.inf, 1e38), (np.inf, np.inf), (1e30, 8.5e37)]
    a, b = np.array(pairs, np.float32).T
    operands = np.stack([x.view(np.uint32).astype(np.uint64) for x in (a, b, a)], 1)
    results = run_each(["div.approx.f32 d32, a32, b32", "div.full.f32 d32, a32, b32"], operands)
    quick, full = results.astype(np.uint32).view(np.float32)
    np.testing.assert_array_equal(quick, [0, -0.0, np.nan, np.nan, a[4] / b[4]])
    np.testing.assert_array_equal(full, [1, -1, np.inf, np.nan, a[4] / b[4]])


def test_16_bits():
    x = numbers(-4, 4)
    operands = np.stack([x.astype(np.float16).view(np.uint16).astype(np.uint64)] * 3, 1)
    exact = np.exp2(x.astype(np.float16).astype(np.float64))
    for jitter in (0, 1):
        bits = run_each(["ex2.approx.f16 d16, a16"], operands, jitter=jitter)[0].astype(np.uint16)
        error = np.abs(bits.view(np.float16) / exact - 1)
        # Rounding adds half an ulp, at most 2^-11, to what the jitter moves.
        assert (
            error.max() <= (jitter * 2**-9.9 + 2.0**-11) * 1.01
            and error.max() > (jitter * 2**-9.9 + 2.0**-11) / 2
        )
