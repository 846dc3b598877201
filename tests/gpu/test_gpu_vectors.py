"""Codes that are vectors on the device: the samples, values and gradients of the reference on the CPU."""

import pytest
import torch
from vectors import KINDS, leaves, normal

from fqvae_kernels import GumbelVectorQuantizer, TemperatureSchedule, gumbel_quantize_logits

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("return_kl", [False, True])
@pytest.mark.parametrize("shapes", [((50, 33), (33, 8)), ((20, 2, 320), (2, 320, 16))])
def test_values_and_gradients(device, backend, kind, return_kl, shapes):
    logits, embedding = normal(shapes[0]), normal(shapes[1], seed=1)
    incoming = normal((*shapes[0][:-1], shapes[1][-1]), seed=2)
    results = []
    for place, name in ((device, backend), (torch.device("cpu"), "reference")):
        given = leaves(logits.to(place), embedding.to(place))
        found = gumbel_quantize_logits(
            given[0],
            embedding=given[1],
            temperature=0.7,
            seed=5,
            row_offset=2**33,
            return_kl=return_kl,
            backend=name,
            **KINDS[kind],
        )
        gradients = torch.autograd.grad((found.quantized * incoming.to(place)).sum(), given)
        if kind != "soft":
            rows = given[1] if given[1].dim() == 2 else given[1].flatten(0, 1)
            books = 0 if given[1].dim() == 2 else torch.arange(2, device=place) * shapes[1][1]
            assert torch.equal(found.quantized, rows[found.indices + books])
        results.append([each.cpu() for each in (found.quantized, found.indices, *gradients)])
    ours, right = results
    same = ours[1] == right[1]
    assert same.float().mean() > 0.98  # floating-point ties
    torch.testing.assert_close(ours[0][same], right[0][same], rtol=1e-4, atol=1e-4)
    if bool(same.all()):
        torch.testing.assert_close(ours[2:], right[2:], rtol=1e-3, atol=1e-4)


def test_the_module(device, backend):
    """A mask, NaN, losses and the schedule's buffers, where they live on the device."""
    torch.manual_seed(0)
    schedule = TemperatureSchedule(2.0, 0.5, decay=0.9)
    q = GumbelVectorQuantizer(
        6, 5, 4, num_codebooks=2, temperature=schedule, diversity_weight=0.5, backend=backend
    ).to(device)
    schedule.step(3)
    assert q.temperature.item() == pytest.approx(2.0 * 0.9**3)
    x = normal((9, 6))
    x[7] = float("nan")
    (x,) = leaves(x.to(device))
    out = q(x, seed=1, mask=torch.arange(9, device=device) < 8)
    assert out.quantized[:7].isfinite().all() and out.quantized[7].isnan().all()
    assert out.indices[8].eq(-1).all() and q.usage.sum().item() == 16
    assert torch.equal(q.codes(out.indices)[:7], out.quantized[:7])
    gradients = torch.autograd.grad((out.quantized[:7].sum(), out.loss), (x, *q.parameters()))
    assert all(each.isfinite().all() for each in gradients) and gradients[0][7:].eq(0).all()
