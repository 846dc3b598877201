"""Latent traversals: which codes a latent really uses, and what an image becomes as one latent moves.

M latents, K codes, S the image size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fqvae.models.autoencoder import Autoencoder, to_uint8


class Traversal(NamedTuple):
    """What `traverse` returns, a list of M for each: latents may take different numbers of steps.

    codes: (steps, M) each, int64 for a discrete model, else float32. images: uint8 (steps, C, S, S) each, on
    the CPU.
    """

    codes: list[Tensor]
    images: list[Tensor]


def used_codes(counts: ArrayLike, values: ArrayLike | None = None) -> list[NDArray[np.int64]]:
    """The indices that each latent uses, in the order of their codes' values, equal values by index.

    Args:
        counts: (M, K), how often each code occurs.
        values: the codebook, (K,) or (M, K); None for codes without an order: then by index.

    Returns:
        int64 (codes used,) for each latent.

    Raises:
        ValueError: shapes that do not fit.
    """
    table = np.asarray(counts)
    if table.ndim != 2:
        raise ValueError(f"counts must be of shape (latents, codes), but was {table.shape}")
    latents, codes = table.shape
    order = np.arange(codes) if values is None else np.asarray(values)
    if order.shape not in ((codes,), table.shape):
        raise ValueError(f"values must be of shape ({codes},) or {table.shape}, but was {order.shape}")
    ranked = np.broadcast_to(np.argsort(order, axis=-1, kind="stable"), table.shape)
    return [ranked[latent][table[latent, ranked[latent]] > 0] for latent in range(latents)]


def spread_codes(used: NDArray[np.int64], steps: int, current: int) -> NDArray[np.int64]:
    """At most `steps` of the codes that a latent uses, evenly among them, `current` included.

    Args:
        used: int64 (codes used,), in order.
        steps: how many; where there are fewer, all.
        current: the code that takes the place of the nearest one chosen; the first and the last stay.

    Returns:
        int64 (steps or fewer,), in the order of `used`.

    Raises:
        ValueError: steps below 1, a current code that is not used.
    """
    _check_steps(steps)
    places = np.flatnonzero(used == current)
    if not len(places):
        raise ValueError(f"current must be one of the codes used, but was {current}")
    chosen = np.floor(np.linspace(0, len(used) - 1, min(steps, len(used))) + 0.5).astype(np.int64)
    chosen[_nearest(chosen, places[0])] = places[0]
    return used[chosen]


def spread_values(values: ArrayLike, steps: int, current: float) -> NDArray[np.float32]:
    """Values of a continuous latent, evenly from its 1st to its 99th percentile, `current` included.

    Args:
        values: (samples,), what the latent has on images.
        steps: how many.
        current: the value that takes the place of the nearest one chosen; the first and the last stay, unless
            it lies beyond them.

    Returns:
        float32 (steps,), ascending; only `current` for a latent that never changes.

    Raises:
        ValueError: steps below 1.
    """
    _check_steps(steps)
    low, high = np.percentile(np.asarray(values, np.float64), (1, 99))
    chosen = np.linspace(low, high, steps if low < high else 1).astype(np.float32)
    chosen[_nearest(chosen, np.float32(current))] = current
    return chosen


@torch.no_grad()
def traverse(model: Autoencoder, codes: Tensor, steps: Sequence[Any], *, batch_size: int = 64) -> Traversal:
    """Decode a base's codes with one latent at a time moved.

    Args:
        model: on any device.
        codes: (M,), the base's, as `model.encode` gives them.
        steps: for each of the M latents the codes or values that it takes, one-dimensional.
        batch_size: images decoded at a time.

    Raises:
        TypeError, ValueError: steps for another number of latents, or codes that `model.decode` refuses.
    """
    if codes.dim() != 1 or len(steps) != len(codes):
        raise ValueError(
            f"steps must be given for each of the codes, (latents,), but there were {len(steps)} "
            f"for codes of shape {tuple(codes.shape)}"
        )
    codes = codes.to(next(model.parameters()).device)
    rows = []
    for latent, taken in enumerate(map(torch.as_tensor, steps)):
        if taken.is_floating_point() != codes.is_floating_point():
            raise TypeError(
                f"steps must be {codes.dtype} like the codes, but latent {latent} has {taken.dtype}"
            )
        row = codes.repeat(len(taken), 1)
        row[:, latent] = taken
        rows.append(row)
    images = torch.cat([to_uint8(model.decode(some)).cpu() for some in torch.cat(rows).split(batch_size)])
    return Traversal(rows, list(images.split([len(row) for row in rows])))


def _nearest(chosen: NDArray[Any], current: Any) -> int:
    """Which of the ascending numbers to replace: the nearest, if possible neither the first nor the last."""
    inner = chosen[1:-1]
    if len(inner) and chosen[0] < current < chosen[-1]:
        return int(np.abs(inner - current).argmin()) + 1
    return int(np.abs(chosen - current).argmin())


def _check_steps(steps: int) -> None:
    if steps < 1:
        raise ValueError(f"steps must be at least 1, but was {steps}")
