"""What keeps codes alive, under layouts, masks and levels."""

import pytest
import torch
from gradcases import leaf
from quantizers import z_of

from fqvae_kernels import ScalarQuantizer


def new(**options):
    torch.manual_seed(1)
    return ScalarQuantizer(**({"backend": "reference"} | options))


@pytest.mark.parametrize("is_sorted", [False, True])
@pytest.mark.parametrize("through", ["call", "init_from"])
def test_levels_start_at_quantiles_of_their_own(through, is_sorted):
    q = new(levels=[4, 2, 4, 1], init="data", sorted=is_sorted)
    z = z_of(40, 4)
    q(z) if through == "call" else q.init_from(z)
    for latent, level in enumerate(q.levels):
        alone = new(codebook_size=level, init="data")
        alone.init_from(z[:, latent])
        torch.testing.assert_close(q.codebook[latent, :level], alone.codebook)
    # The start is over.
    before = q.codebook.clone()
    q(z + 9)
    assert torch.equal(q.codebook, before)


def test_a_start_sees_neither_masked_rows_nor_another_layout():
    z, mask = z_of(5, 3, 4, 4), z_of(5, 4, 4, seed=2) > 0
    q, other = new(num_codebooks=3, init="data", channel_first=True), new(num_codebooks=3, init="data")
    q(z.masked_fill(~mask.unsqueeze(1), 99.0), mask=mask)
    other(z.movedim(1, -1)[mask])
    torch.testing.assert_close(q.codebook, other.codebook)
    q.init_from(z)
    other.init_from(z.movedim(1, -1).reshape(-1, 3))
    torch.testing.assert_close(q.codebook, other.codebook)


def test_a_start_sees_the_projected_z():
    q = new(dim=6, num_latents=3, init="data")
    z = z_of(20, 6)
    other = new(init="data")
    other.init_from(q.project_in(z))
    q(z)
    assert torch.equal(q.codebook, other.codebook)


def test_masked_rows_keep_no_code_alive():
    """Nor does a code restart at one."""
    q = new(codebook_size=2, estimator="nearest", init=torch.tensor([0.0, 5.0]), revive_after=2)
    z, mask = torch.tensor([0.1, 5.0, 7.0]), torch.tensor([True, False, False])
    for _ in range(2):
        q(z, mask=mask)
    assert q.codebook.tolist() == [0.0, pytest.approx(0.1)]


@pytest.mark.parametrize("learn_precision", [False, True])
def test_entropy_of_levels_and_masks(learn_precision):
    """Against the definition in float64, each latent over its own codes and its own rows that count."""
    q = new(levels=[5, 2, 3], entropy_weight=0.7, precision=[2.0, 1.0, 0.5], learn_precision=learn_precision)
    z, mask = leaf(z_of(12, 3)), z_of(12, 3, seed=2) > -0.3
    out = q(z, mask=mask)
    x, book = leaf(z.detach().double()), leaf(q.codebook.detach().double())
    sharp, spread = 0.0, 0.0
    for latent, (level, s) in enumerate(zip([5, 2, 3], [2.0, 1.0, 0.5], strict=True)):
        rows = x[:, latent][mask[:, latent]]
        posterior = (-s * (rows.unsqueeze(-1) - book[latent, :level]) ** 2).softmax(-1)
        sharp = sharp + torch.special.entr(posterior).sum()
        spread = spread + len(rows) * torch.special.entr(posterior.mean(0)).sum()
    expected = 0.7 * (sharp - spread) / mask.sum()
    torch.testing.assert_close(out.losses["entropy"].double(), expected, atol=1e-5, rtol=1e-5)
    out.loss.backward()
    expected.backward()
    torch.testing.assert_close(z.grad.double(), x.grad, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(q.codebook.grad.double(), book.grad, atol=1e-5, rtol=1e-5)


def test_unused_codes_of_levels_restart():
    """Within their levels; what lies beyond is taken by nothing before and after."""
    q = new(levels=[3, 2], estimator="nearest", revive_after=1)
    z = torch.full((4, 2), 0.25)
    q(z)
    out = q(z)
    assert (out.indices < torch.tensor([3, 2])).all() and (out.quantized == 0.25).all()
    assert q.codebook[1, :2].eq(0.25).any() and not q.usage[1, 2:].any()


@pytest.mark.parametrize("estimator", ["gumbel", "nearest"])
def test_levels_that_restart_let_the_call_be_differentiated(estimator):
    """Codes that restart in place change no gradient of their call: those of one that restarts nothing."""
    options = {"levels": [3, 2], "estimator": estimator, "codebook_weight": 1.0, "kl_weight": 0.1}
    q, still = new(**options, revive_after=1), new(**options)
    z, other = leaf(z_of(4, 2) + 5), leaf(z_of(4, 2) + 5)
    before = q.codebook.detach().clone()
    for quantizer, given in ((q, z), (still, other)):
        out = quantizer(given, seed=3)
        (out.quantized.sum() + out.loss).backward()
    assert not torch.equal(q.codebook, before), "codes have restarted"
    torch.testing.assert_close(z.grad, other.grad)
    torch.testing.assert_close(q.codebook.grad, still.codebook.grad)
