"""One shape of the quantizer benchmark with its inputs, and on a GPU with copies of them that fill its cache.

The rest of the harness builds on it, in this order: contenders compute on a case, clocks time a contender on
a case, the grid and the bars run the clocks, and the report prints what they have measured.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

_MOST_COPIES = 4096


@dataclass
class Case:
    """One shape with its inputs: Gaussian z and codebook, float32, and the gradients that come back.

    On a GPU there are copies of all but the codebook, for turns that are not to find their inputs in its
    cache.
    """

    z: Tensor
    codebook: Tensor
    grad_quantized: Tensor
    grad_kl: Tensor
    temperature: float
    copies: list[Case] = field(default_factory=list, repr=False)

    @classmethod
    def make(cls, scalars: int, codes: int, temperature: float, device: torch.device) -> Case:
        generator = torch.Generator().manual_seed(20240914)

        def normal(size: int) -> Tensor:
            return torch.randn(size, generator=generator).to(device)

        case = cls(
            z=normal(scalars).requires_grad_(),
            codebook=normal(codes).requires_grad_(),
            grad_quantized=normal(scalars),
            grad_kl=normal(scalars),
            temperature=temperature,
        )
        if device.type == "cuda":
            case.copy(copies_past_cache(3 * 4 * scalars, cache_bytes(device)))
        return case

    def copy(self, count: int) -> None:
        """Make so many copies for `next_copy` to go through."""
        inputs = torch.stack([self.z.detach(), self.grad_quantized, self.grad_kl])
        self.copies = [
            Case(z.requires_grad_(), self.codebook, a, h, self.temperature)
            for z, a, h in inputs.repeat(count, 1, 1).unbind()
        ]

    def next_copy(self) -> Case:
        """The copy that was used longest ago, or the case itself if there are none."""
        if not self.copies:
            return self
        self.copies.append(self.copies.pop(0))
        return self.copies[-1]

    @property
    def scalars(self) -> int:
        return self.z.numel()

    @property
    def codes(self) -> int:
        return self.codebook.numel()

    @property
    def pairs(self) -> int:
        return self.scalars * self.codes


def copies_past_cache(bytes_a_copy: int, cache_bytes: int) -> int:
    """How many copies of a turn's inputs fill the cache twice, so that the oldest is no longer in it."""
    return min(_MOST_COPIES, max(1, math.ceil(2 * cache_bytes / max(1, bytes_a_copy))))


def cache_bytes(device: torch.device) -> int:
    """The size of the device's L2 cache; 64 MiB where PyTorch does not say."""
    return int(getattr(torch.cuda.get_device_properties(device), "L2_cache_size", 0)) or 64 * 2**20
