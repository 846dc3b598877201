"""The data: digits that scikit-learn ships, and sounds and series made from a fixed seed."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import interpolate


def digits(size: int) -> tuple[Tensor, Tensor]:
    """scikit-learn's digits, (N, 1, size, size) in [-1, 1]: 1,500 to train and 297 held out."""
    from sklearn.datasets import load_digits

    images = torch.from_numpy(load_digits().images / 8 - 1).float().unsqueeze(1)
    images = interpolate(images, (size, size), mode="bilinear")
    images = images[torch.randperm(len(images), generator=torch.Generator().manual_seed(0))]
    return images[:1500], images[1500:]


def tones(count: int, length: int) -> Tensor:
    """Sums of two decaying tones (count, length), 16 kHz, of 100 to 2,000 Hz."""
    generator = torch.Generator().manual_seed(0)
    time = torch.arange(length) / 16_000
    pitch = 100 * 20 ** torch.rand(count, 2, 1, generator=generator)
    decay = 5 + 45 * torch.rand(count, 2, 1, generator=generator)
    phase = 2 * math.pi * torch.rand(count, 2, 1, generator=generator)
    return 0.4 * ((2 * math.pi * pitch * time + phase).sin() * (-decay * time).exp()).sum(1)


def padded_series(count: int, longest: int, channels: int) -> Tensor:
    """Series of a quarter of `longest` to `longest` steps, 0 after their end: (count, longest, channels + 1).

    Each channel is the sum of two sines, whose periods of 8 to 40 steps the channels of a series share. The
    last channel is 1 up to the end and 0 after it.
    """
    generator = torch.Generator().manual_seed(0)
    steps = torch.arange(longest).reshape(1, -1, 1, 1)
    period = 8 * 5 ** torch.rand(count, 1, 1, 2, generator=generator)
    phase = 2 * math.pi * torch.rand(count, 1, channels, 2, generator=generator)
    height = torch.rand(count, 1, channels, 2, generator=generator)
    series = (height * (2 * math.pi * steps / period + phase).sin()).sum(-1)
    lengths = torch.randint(longest // 4, longest + 1, (count, 1, 1), generator=generator)
    valid = (steps[..., 0] < lengths).float()
    return torch.cat((series * valid, valid), -1)
