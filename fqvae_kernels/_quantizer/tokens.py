"""One integer for the indices of a position: mixed radix by the latents' sizes, the first latent leading."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

_BITS = 63


def check_tokens_fit(sizes: Sequence[int]) -> int:
    """The number of tokens, if they fit into an int64 without its sign."""
    count = math.prod(sizes)
    if count > 2**_BITS:
        same = len(set(sizes)) == 1
        product = f"{sizes[0]}**{len(sizes)}" if same else " * ".join(map(str, sizes))
        raise ValueError(
            f"a token holds at most 2**{_BITS} = {2**_BITS} combinations, but these latents have {product} = "
            f"{count}; take tokens of fewer latents or codes"
        )
    return count


def pack(indices: Tensor, sizes: Sequence[int]) -> Tensor:
    """Tokens (...), int64, of indices (..., latents); -1 where one of them is -1."""
    token = torch.zeros(indices.shape[:-1], dtype=torch.int64, device=indices.device)
    for latent, size in enumerate(sizes):
        token = token * size + indices[..., latent].clamp(min=0)
    return token.masked_fill((indices < 0).any(-1), -1)


def unpack(tokens: Tensor, sizes: Sequence[int]) -> Tensor:
    """Indices (..., latents), int64, of tokens (...); all of them -1 where the token is -1."""
    rest = tokens.clamp(min=0).long()
    columns = []
    for size in reversed(sizes):
        columns.append(rest % size)
        rest = rest // size
    return torch.stack(columns[::-1], -1).masked_fill((tokens < 0).unsqueeze(-1), -1)
