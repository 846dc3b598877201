"""A codebook that torch.nn.utils.parametrize computes from another tensor: its codes start and restart."""

import pytest
import torch
from torch.nn.utils.parametrize import register_parametrization

from fqvae_kernels import ScalarQuantizer


class Tanh(torch.nn.Module):
    def forward(self, given):
        return 3 * torch.tanh(given)

    def right_inverse(self, codes):
        return torch.atanh((codes / 3).clamp(-0.999, 0.999))


class OneWay(torch.nn.Module):
    def forward(self, given):
        return 3 * torch.tanh(given)


def parametrized(how=Tanh, name="codebook", **options):
    q = ScalarQuantizer(4, **options)
    register_parametrization(q, name, how())
    return q


Z = torch.linspace(-1, 1, 40).reshape(20, 2)
QUANTILES = torch.quantile(Z.flatten(), torch.tensor([0.125, 0.375, 0.625, 0.875]))


def test_codes_start_from_data():
    q = parametrized(init="data")
    q(Z)
    torch.testing.assert_close(q.codebook.detach(), QUANTILES, atol=0.03, rtol=0)
    q.reset_parameters()
    before = q.codebook.detach().clone()
    q.init_from(Z)
    assert not torch.equal(q.codebook, before)
    torch.testing.assert_close(q.codebook.detach(), QUANTILES, atol=0.03, rtol=0)


def test_sorted_codes():
    q = parametrized(name="codebook_steps", sorted=True, init=torch.tensor([-1.0, 0.0, 0.5, 1.0]))
    q.init_from(Z)
    assert (q.codebook.diff() > 0).all()


def test_reset():
    q = parametrized(init=torch.tensor([-1.0, 0.0, 0.5, 1.0]))
    with torch.no_grad():
        q.parametrizations.codebook.original.fill_(0.1)
    q.reset_parameters()
    torch.testing.assert_close(q.codebook.detach(), torch.tensor([-1.0, 0.0, 0.5, 1.0]))


def test_codes_restart():
    q = parametrized(init=torch.tensor([-1.0, 0.0, 1.0, 2.5]), estimator="nearest", revive_after=2)
    z = Z.clone().requires_grad_()
    for _ in range(2):
        q(z).quantized.sum().backward()
    assert (Z - q.codebook[3]).abs().min() < 1e-5  # at an input


def test_what_cannot_be_set_is_said():
    q = parametrized(OneWay, init="data")
    with pytest.raises(RuntimeError, match="right_inverse"):
        q(Z)
