"""How far the support of the latents is from a product: Hausdorff factorized support.

If latents i and j each take a set of values, a factorized support holds all pairs of these. With the latents
z_1..z_B of a batch of images the penalty is

    sum over i < j of max over a, b of min over n of (z_ai - z_ni)**2 + (z_bj - z_nj)**2

which is 0 if every pair of values occurs, however often: correlated factors may keep their correlation.
Karsten Roth, Mark Ibrahim, Zeynep Akata, Pascal Vincent, Diane Bouchacourt, "Disentanglement of Correlated
Factors via Hausdorff Factorized Support", ICLR 2023. As in their program, distances are squared, z is what
the encoder says before anything is drawn, and of many images the maximum is over pairs (a, b) that are drawn
anew in every step. A batch is what one process has of it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fqvae.models.penalties.penalty import Penalty, Seen

_PAIRS = 256  # (a, b) drawn for each i < j; all of them if there are no more


def hausdorff(seen: Seen) -> Tensor:
    """The penalty of a batch, 0-d, in squared units of z; 0 for a single latent."""
    z = seen.drawn.z
    i, j = torch.triu_indices(z.shape[1], z.shape[1], 1, device=z.device)
    if len(i) == 0:
        return z.sum() * 0
    a, b = (each.to(z.device) for each in _draw_pairs(len(z), len(i), seen.seed))
    z_i, z_j = z[:, i], z[:, j]  # (batch, pairs of latents)
    corner_i, corner_j = z_i.gather(0, a), z_j.gather(0, b)
    with torch.no_grad():  # which corner is the farthest, and which image the nearest to it
        distances = (corner_i.unsqueeze(1) - z_i).square_().add_((corner_j.unsqueeze(1) - z_j).square_())
        least, image = distances.min(1)
        corner = least.argmax(0, keepdim=True)
        image = image.gather(0, corner)
    chosen = [(corner_i, z_i), (corner_j, z_j)]
    return torch.stack(
        [(corners.gather(0, corner) - z.gather(0, image)).square().sum() for corners, z in chosen]
    ).sum()


def _draw_pairs(batch: int, columns: int, seed: int) -> tuple[Tensor, Tensor]:
    """Numbers a and b of images, each (pairs, columns) int64 on the CPU: of all pairs, or of drawn ones."""
    if batch**2 <= _PAIRS:
        every = torch.cartesian_prod(torch.arange(batch), torch.arange(batch))
        a, b = every.unsqueeze(-1).expand(-1, -1, columns).unbind(1)
        return a, b
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.randint(batch, (2, _PAIRS, columns), generator=generator).unbind()
    return a, b


HAUSDORFF = Penalty(
    "hausdorff",
    "distance from a factorized support",
    "how far combinations of two latents' values lie from those that occur, squared, summed over such pairs",
    goes_with=lambda latent: latent.kind in ("plain", "gaussian", "scalar"),
    compute=hausdorff,
)
