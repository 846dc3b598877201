"""Quantizers with losses, and z for them."""

import pytest
import torch

from fqvae_kernels import ScalarQuantizer

ESTIMATORS = ("gumbel", "straight_through", "reinmax", "nearest")


def z_of(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def quantizer(**options):
    """Five codes and three losses, on the reference unless an option says otherwise."""
    options = {
        "kl_weight": 0.1,
        "commitment_weight": 0.2,
        "codebook_weight": 0.3,
        "backend": "reference",
    } | options
    torch.manual_seed(1)
    return ScalarQuantizer(5, **options)


@pytest.fixture
def fresh_compiler():
    """No program that another test compiled counts as a recompilation here, and none from here elsewhere."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()
