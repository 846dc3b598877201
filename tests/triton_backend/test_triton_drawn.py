"""straight_through and reinmax with backend "triton", their kernels interpreted."""

import random

import numpy as np
import pytest
import torch
from cases import DTYPES, make
from estimator_checks import ESTIMATORS, check_estimator, check_indices, row_uniform
from test_backward import SUBSETS
from test_forward import TEMPERATURES, cluster_case, divisor, far_case
from test_triton_interpreted import CODES, rows_at_edges

from fqvae_kernels.backends._triton.launch import forward_tile

pytestmark = pytest.mark.parametrize("estimator", ESTIMATORS)


@pytest.mark.parametrize("codes", CODES)
def test_grid(interpreted, estimator, codes):
    """Every mode, drawn: dtype, per latent, logits, temperature, outputs in the loss."""
    draw = random.Random(f"{estimator} {codes}")
    edges = rows_at_edges(codes)
    for i in range(1 if codes > 100 else 2):
        rows = edges[(codes + i) % len(edges)]
        case = make(
            rows,
            codes,
            dtype=DTYPES[(codes + i) % 4],
            latents=divisor(rows) if draw.random() < 0.5 else 0,
            is_logits=draw.random() < 0.5,
            temperature=draw.choice(TEMPERATURES),
            seed=2**63 + codes,
            row_offset=2**32 - rows // 2,
        )
        check_estimator(case, interpreted, estimator, draw.choice(SUBSETS))


@pytest.mark.parametrize("is_logits", [False, True])
@pytest.mark.parametrize("latents", [0, 3])
def test_many_rows(interpreted, few_rows_are_many, estimator, is_logits, latents):
    assert forward_tile(300, 9) == (256, 1)
    case = make(300, 9, is_logits=is_logits, latents=latents, temperature=0.3)
    check_estimator(case, interpreted, estimator)


@pytest.mark.parametrize("dtype", DTYPES)
def test_far_z(interpreted, estimator, dtype):
    for codes in (5, 67):
        check_estimator(far_case(dtype, codes, temperature=0.7), interpreted, estimator)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_far_z_before_a_cluster_of_codes(interpreted, estimator, dtype):
    for falling, temperature in ((False, 0.01), (True, 5.0)):
        case = cluster_case(dtype, falling, temperature=temperature, estimator=estimator)
        check_estimator(case, interpreted, estimator)


def test_wide_codebooks(interpreted, estimator):
    check_estimator(make(30, 17, scale=1e3, temperature=0.5), interpreted, estimator)


@pytest.mark.parametrize("temperature", [1e-12, 1e-6, 1e30])
@pytest.mark.parametrize("is_logits", [False, True])
def test_extreme_temperatures(interpreted, estimator, is_logits, temperature):
    """p is one code's alone, or uniform: what 1 / temperature would multiply is exactly 0."""
    case = make(40, 17, is_logits=is_logits, temperature=temperature)
    check_estimator(case, interpreted, estimator)


@pytest.mark.parametrize("dtype", DTYPES)
def test_masked_codes_are_never_drawn(interpreted, estimator, dtype):
    """Wherever they lie: before, between and behind the others; and a row of one code."""
    case = make(200, 22, dtype=dtype, is_logits=True, temperature=0.5)
    input = case.input.clone()
    mask = torch.from_numpy(np.random.default_rng(1).random((200, 22)) < 0.6)
    mask[:40, :9], mask[40:80, 13:], mask[80:90] = True, True, True
    mask[80:90, 5] = False
    mask[torch.arange(200), torch.arange(200) % 3 + 9] = False
    input[mask] = -float("inf")
    case = case.but(input=input)
    out = case.call(interpreted, estimator=estimator)
    check_indices(case, out.indices)
    assert not mask[torch.arange(200), out.indices].any()
    check_estimator(case.but(input=input[:60]), interpreted, estimator)


def test_weightless_codes_beside_the_target(interpreted, estimator):
    """The lowest and the highest u that there are, over codes of which the outer ones weigh nothing.

    In many ways, since it depends on the rounding of sums whether the highest u reaches beyond the last code.
    """
    few = 4 if estimator == "reinmax" else 60  # one draws as the other
    random = torch.Generator().manual_seed(1)
    for row, u, index in ((4345821, 2.0**-24, 9), (2771053, 1 - 2.0**-24, 22)):
        assert row_uniform(11, 1, row) == u
        for _ in range(few):
            logits = torch.full((1, 37), -float("inf"))
            logits[:, 9:23] = torch.rand(14, generator=random)
            case = make(1, 37, is_logits=True, seed=11, row_offset=row).but(input=logits)
            assert case.call(interpreted, estimator=estimator, return_kl=False).indices.item() == index


def test_many_codes(interpreted, estimator):
    """Boundaries of 16,384 codes are off by no more than 2e-6: sums over codes lose next to nothing.

    One draws as the other: one sees scalars, and one logits.
    """
    is_logits = estimator == "reinmax"
    case = make(16, 16_384, is_logits=is_logits, seed=5)
    if is_logits:
        case = case.but(input=case.input * 0.25 - 3.0)
    out = case.call(interpreted, estimator=estimator, return_kl=False)
    check_indices(case, out.indices)


def test_frequencies_are_the_posterior(interpreted, estimator):
    """Chi-squared over 4,000 rows of the same scalar."""
    book = torch.tensor([-1.0, -0.2, 0.1, 0.9, 1.5])
    case = make(4_000, 5, seed=3).but(input=torch.full((4_000,), 0.3), codebook=book)
    counts = np.bincount(case.call(interpreted, estimator=estimator).indices.numpy(), minlength=5)
    expected = 4_000 * case.true_forward().posterior[0]
    assert ((counts - expected) ** 2 / expected).sum() < 23.5  # 1 in 10,000 with 4 degrees of freedom
