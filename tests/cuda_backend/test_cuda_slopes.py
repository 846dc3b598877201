"""A codebook that wants no gradient: the backward pass has two products a row, from the slopes that the
forward pass has kept. The CUDA backend's kernels, run on the CPU as PTX.
"""

import itertools

import pytest
import torch
from cases import DTYPES, check_forward, make, output_gradients
from cudaptx import running_ptx
from gradcases import assert_gradients, leaf, library_gradients
from nvcc import needs_nvcc

pytestmark = needs_nvcc

Z_ALONE = (True, False, False)


def check(case, a, h, bound=None, **launch):
    """The gradient of z, and the forward pass that comes with it."""
    with running_ptx(**launch) as launcher:
        got = library_gradients(case, "cuda", a, h, requires=Z_ALONE)
        assert {name.rpartition("_")[0] for name in launcher.launched} == {
            "forward_z_slopes",
            "backward_slopes",
        }
        check_forward(case, case.call("cuda", input=leaf(case.input)), weights=False)
    true = case.true_gradients(a, h, None)
    # The others are not asked for here.
    book = torch.from_numpy(true.codebook).to(case.codebook.dtype).reshape(case.codebook.shape)
    temperature = torch.tensor(true.temperature, dtype=torch.float64)
    assert_gradients(case, (got[0], book, temperature), true, bound)
    return got[0]


@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
@pytest.mark.parametrize("codes", [1, 2, 5, 8, 63, 64, 257, 2051])
def test_every_temperature(codes, arch):
    """Bounded and exact scorers, one thread a row and several, codebooks in parts."""
    for temperature, launch in (
        (0.01, {"race": True}),
        (0.14, {"race": True, "order": 1, "jitter": 1}),
        (0.7, {"race": True, "order": 2, "seed": 5, "jitter": 1, "multiprocessors": 132}),
        (100.0, {"race": True}),
    ):
        case = make(33, codes, temperature=temperature, row_offset=2**32 - 20)
        a, h, _ = output_gradients(case, weights=False)
        check(case, a, h, case.tolerance if "jitter" in launch else None, arch=arch, **launch)


@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes_codebooks_and_hard(dtype):
    for latents, hard, which in itertools.product((0, 3), (False, True), ((0, 1), (0,), (1,))):
        case = make(36, 12, dtype=dtype, latents=latents, hard=hard, temperature=0.4)
        given = output_gradients(case, weights=False)
        a, h = (given[i] if i in which else None for i in (0, 1))
        check(case, a, h, race=True)


def test_temperatures_near_zero():
    """All weight on one code: the slope is exactly 0, whatever 1/temperature is."""
    for temperature, furthest in ((1e-6, 1e10), (1e-9, 1e10), (1e-12, 3.0), (1e-30, 1e30)):
        case = make(40, 17, temperature=temperature)
        case.codebook[[2, 9]] = torch.tensor([-furthest, furthest])
        a, h, _ = output_gradients(case, weights=False)
        check(case, a, h, 1e-5)


def test_high_temperatures_and_far_codes():
    """Weights that hardly differ, over codes far apart."""
    for temperature, scale in ((1e3, 10.0), (1e15, 1e7)):
        case = make(40, 17, temperature=temperature, scale=scale)
        a, _, _ = output_gradients(case, weights=False)
        check(case, a, None, 1e-5)


def test_z_that_is_not_finite_and_z_that_is_far():
    """A row that is not usable passes nothing on, not even NaN."""
    z = torch.tensor([float("nan"), 1.0, float("inf"), -float("inf"), 1e30, -1e19, 2e4])
    for codes in (7, 130):
        case = make(7, codes)
        nan = torch.where(z.isfinite(), torch.ones(7), torch.full((7,), float("nan")))
        with running_ptx(race=True):
            got = library_gradients(case.but(input=z), "cuda", nan, nan, requires=Z_ALONE)[0]
        assert got.isfinite().all() and not got[~z.isfinite()].any()
        there = case.but(input=torch.where(z.isfinite(), z, 0))
        check(there, *output_gradients(there, weights=False)[:2], 1e-5)


def test_the_same_as_with_a_codebook_that_wants_one():
    case = make(200, 64, latents=2, temperature=0.3)
    a, h, _ = output_gradients(case, weights=False)
    with running_ptx():
        whole = library_gradients(case, "cuda", a, h)[0]
    torch.testing.assert_close(check(case, a, h), whole, atol=2e-5, rtol=2e-5)


def test_two_backward_passes_and_more_than_z_wanted():
    case = make(50, 9, temperature=0.5)
    a, h, v = output_gradients(case)
    with running_ptx() as launcher:
        z = leaf(case.input)
        out = case.call("cuda", input=z)
        grads = [torch.autograd.grad((out.quantized, out.kl), z, (a, h), retain_graph=True) for _ in (1, 2)]
        assert torch.equal(grads[0][0], grads[1][0])
        assert launcher.launched == ["forward_z_slopes_float", *["backward_slopes_float"] * 2]
        for requires, weights in (((True, True, False), None), ((True, False, True), None), (Z_ALONE, v)):
            library_gradients(case, "cuda", a, h, weights, requires=requires)
        assert launcher.launched.count("forward_z_slopes_float") == 1
