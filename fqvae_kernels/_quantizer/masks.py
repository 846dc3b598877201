"""Which rows of z count. Within the quantizer the others are NaN: they enter no loss and get no gradient."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fqvae_kernels._quantizer.estimator import Taken


def check_bools(mask: Tensor, device: torch.device, counting: str) -> Tensor:
    """A tensor of bools on the device of what counts where it is True."""
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        was = mask.dtype if isinstance(mask, Tensor) else f"{mask!r} ({type(mask).__name__})"
        raise TypeError(f"mask must be a torch.bool tensor, True where {counting} counts, but was {was}")
    if mask.device != device:
        raise ValueError(f"mask must be on the device of {counting} ({device}), but was on {mask.device}")
    return mask


def check_mask(mask: Tensor, shape: tuple[int, ...], latent_dim: int, device: torch.device) -> Tensor:
    """The mask in the shape of indices, whose dimension latent_dim holds the latents.

    It may be given without that dimension, for all latents of a position.
    """
    if check_bools(mask, device, "z").shape == shape:
        return mask
    wanted = f"{shape}, that of indices"
    if shape:
        positions = list(shape)
        del positions[latent_dim]
        if list(mask.shape) == positions:
            return mask.unsqueeze(latent_dim).expand(shape)
        wanted += f", or {tuple(positions)}, for all latents of a position"
    raise ValueError(f"mask must have shape {wanted}, but had shape {tuple(mask.shape)}")


def hide(z: Tensor, mask: Tensor) -> Tensor:
    """z with NaN where it does not count, and no gradient there."""
    return z.masked_fill(~mask, math.nan)


def clear(taken: Taken, mask: Tensor) -> Taken:
    """What was taken for a hidden z, with 0 and the index -1 where it does not count."""
    hidden = ~mask
    kl, weights = taken.kl, taken.weights
    return Taken(
        taken.quantized.masked_fill(hidden, 0),
        taken.indices.masked_fill(hidden, -1),
        None if kl is None else kl.masked_fill(hidden, 0),
        None if weights is None else weights.masked_fill(hidden.unsqueeze(-1), 0),
    )
