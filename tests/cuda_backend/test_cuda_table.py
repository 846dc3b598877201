"""The KL from a table, which many rows take: the CUDA backend's kernels, run on the CPU as PTX."""

import numpy as np
import pytest
import torch
import truth
from cases import DTYPES, check_forward, double, make, output_gradients
from cudaptx import running_ptx
from gradcases import assert_gradients, library_gradients
from nvcc import needs_nvcc

import fqvae_kernels
from fqvae_kernels.backends._cuda import geometry

pytestmark = needs_nvcc


@pytest.fixture(autouse=True)
def a_table_always_pays(monkeypatch):
    monkeypatch.setattr(geometry, "_TABLE_CYCLES", -1)
    monkeypatch.setattr(geometry, "_ROWS_PER_NODE", 0)


def check_both(case, **launch):
    """Forward and backward against the truth; the kernels that ran in the forward pass."""
    a, h, _ = output_gradients(case, weights=False)
    with running_ptx(**launch) as launcher:
        check_forward(case, case.call("cuda"), weights=False)
        ran = list(launcher.launched)
        got = library_gradients(case, "cuda", a, h)
    bound = case.tolerance if "jitter" in launch else None
    assert_gradients(case, got, case.true_gradients(a, h, None), bound)
    return ran


@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
@pytest.mark.parametrize("codes", [4, 5, 8, 12, 61, 64, 65, 256, 2048])
def test_forward_and_backward(codes, arch):
    for temperature, options in (
        (0.7, {"race": True}),
        (0.2, {"race": True, "order": 1, "jitter": 1}),
        (3.0, {"race": True, "order": 2, "seed": 5, "jitter": 1}),
    ):
        case = make(70, codes, temperature=temperature, hard=temperature == 3.0, row_offset=2**32 - 80)
        ran = check_both(case, arch=arch, **options)
        assert ran == ["posterior_float", "forward_z_table_float"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes_and_codebooks_per_latent(dtype):
    """float64 has no table."""
    ran = check_both(make(66, 12, latents=3, dtype=dtype), race=True, multiprocessors=132)
    assert ("posterior_float" in ran) == (dtype != torch.float64)


@pytest.mark.parametrize("temperature", [0.01, 0.7])
def test_rows_and_codebooks_that_the_table_does_not_serve(temperature):
    """Far z, NaN, a gap too wide for the table, a codebook too wide for its scorer, codes that are equal."""
    case = make(48, 12, temperature=temperature)
    z = case.input.clone()
    z[:8] = torch.tensor([3e38, -3e38, 30.0, -30.0, 4.4, float("nan"), float("inf"), -float("inf")])
    gap = torch.cat([case.codebook[:6] * 0.1 - 1.4, case.codebook[6:] * 0.1 + 1.4])
    widest = torch.linspace(-7.99, 8.0, 12)  # of those that the bounded scorer serves: its gaps are too wide
    for codebook in (case.codebook, gap, widest, case.codebook * 40, torch.full((12,), 0.3)):
        check_both(case.but(input=z, codebook=codebook), race=True)


def test_the_largest_table():
    """Of the widest codebook: its nodes fill the memory that there is for them, and no more."""
    case = make(64, 200, temperature=0.7)
    codebook = torch.linspace(-8, 8, 200)
    check_both(case.but(input=case.input * 4, codebook=codebook), race=True)


def test_rows_that_cross_two_to_the_32():
    case = make(60, 12, latents=3, row_offset=2**32 - 30)
    assert check_both(case, race=True) == ["posterior_float", *["forward_z_table_float"] * 2]


@pytest.mark.parametrize("jitter", [0, 1])
@pytest.mark.parametrize("codebook", ["normal", "even", "two groups"])
def test_error_of_the_table(codebook, jitter):
    """KL and its slope on a fine grid of z, against the formula in float64."""
    books = {
        "normal": torch.randn(64, generator=torch.Generator().manual_seed(1)),
        "even": torch.linspace(-1.5, 1.5, 5),
        "two groups": torch.cat([torch.linspace(-1.1, -0.6, 9), torch.linspace(0.6, 1.1, 9)]),
    }
    book = books[codebook]
    z = torch.linspace(book.min() - 1.6, book.max() + 1.6, 3001)
    with running_ptx(jitter=jitter) as launcher:
        leaf = z.clone().requires_grad_()
        out = fqvae_kernels.gumbel_quantize(leaf, book.clone().requires_grad_(), seed=1, backend="cuda")
        assert launcher.launched == ["posterior_float", "forward_z_table_float"]
        (slope,) = torch.autograd.grad(out.kl.sum(), leaf)
    noise = np.zeros((len(z), len(book)))
    options = {"temperature": 1.0, "hard": False, "is_logits": False, "noise": noise}
    true = truth.forward(double(z), double(book), **options)
    assert np.abs(double(out.kl) - true.kl).max() <= 3e-6
    gradients = truth.gradients(
        double(z), double(book), grad_quantized=None, grad_kl=np.ones(len(z)), grad_weights=None, **options
    )
    assert np.abs(double(slope) - gradients.input).max() <= 6e-6


def test_many_rows_take_it_of_themselves(monkeypatch):
    monkeypatch.undo()
    rows = 8 * geometry.TABLE_NODES
    case = make(rows, 64)
    with running_ptx(multiprocessors=1) as launcher:
        check_forward(case, case.call("cuda"), weights=False)
        assert launcher.launched == ["posterior_float", "forward_z_table_float"]
        fewer = make(rows - 1, 64)
        fewer.call("cuda")
        assert launcher.launched[2:] == ["forward_z_float"]
