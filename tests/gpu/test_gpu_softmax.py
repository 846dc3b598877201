"""`gumbel_softmax` on the device: the samples and gradients that the CPU has."""

import pytest
import torch

import fqvae_kernels
from fqvae_kernels import gumbel_softmax

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("dim", [-1, 0])
def test_as_on_the_cpu(backend, device, dtype, hard, dim):
    generator = torch.Generator().manual_seed(0)
    values, incoming = (torch.randn(33, 70, generator=generator).to(dtype) for _ in range(2))
    values[3, 5] = -torch.inf
    values[4] = values[:, 4] = torch.nan
    found = []
    for where, name in ((torch.device("cpu"), None), (device, backend)):
        logits = values.to(where).requires_grad_()
        tau = torch.tensor(0.8, device=where, requires_grad=True)
        result = gumbel_softmax(logits, tau, hard, dim, seed=6, row_offset=2**33, backend=name)
        assert result.device == logits.device
        gradients = torch.autograd.grad(
            result.nansum() + (result * incoming.to(where)).nansum(), (logits, tau)
        )
        found.append([each.detach().cpu().double() for each in (result, *gradients)])
    bound = {torch.float64: 1e-10, torch.float32: 5e-5, torch.float16: 5e-3, torch.bfloat16: 3e-2}[dtype]
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=bound, atol=bound, equal_nan=True)


def test_patched(device):
    logits = torch.randn(64, 10, device=device, generator=torch.Generator(device).manual_seed(0))
    torch.manual_seed(2)
    ours = gumbel_softmax(logits, 0.5)
    torch.manual_seed(2)
    with fqvae_kernels.patched():
        assert torch.equal(torch.nn.functional.gumbel_softmax(logits, 0.5), ours)
