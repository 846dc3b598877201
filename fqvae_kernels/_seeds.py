"""Seeds: 64 bits, held as a Python int in [0, 2**64) or as a 0-d int64 tensor of the same bits."""

from __future__ import annotations

import ctypes
import operator
import threading

import torch
from torch import Tensor

MASK64 = 2**64 - 1

_SEED = torch.zeros((), dtype=torch.int64, device="cpu")


class _Place(threading.local):
    """A tensor of each thread's own that draws are written to, and the number that its memory holds.

    A new tensor for each draw, and Tensor.item to read it, would each cost as much again as the draw.
    """

    def __init__(self) -> None:
        with torch.inference_mode(False):
            self.seed = torch.zeros((), dtype=torch.int64, device="cpu")
        self.bits = ctypes.c_int64.from_address(self.seed.data_ptr())

    def draw(self) -> int:
        self.seed.random_()
        return self.bits.value


_place = _Place()


def draw_seed(data: Tensor) -> int | Tensor:
    """Draw a seed in [0, 2**63) from PyTorch's default CPU generator, whatever the device of the data.

    While a CUDA graph is being captured it comes from the device's generator instead, as a tensor there:
    every replay then draws another one.
    """
    if data.is_cuda and torch.cuda.is_current_stream_capturing():
        return torch.empty((), dtype=torch.int64, device=data.device).random_()
    return _place.draw()


def draw_seed_tensor(device: torch.device) -> Tensor:
    """The same draw as a 0-d int64 tensor on the device, without waiting for it."""
    if device.type == "cpu":
        return torch.empty_like(_SEED).random_()
    if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        return torch.empty((), dtype=torch.int64, device=device).random_()
    return seed_to_tensor(_place.draw(), device)


def place_of_numbers(device: torch.device) -> torch.device:
    """Where a traced program that gets tensors on the device is to keep its own seeds and temperatures.

    With CUDA tensors that is the device: CUDA graphs, which torch.compile(mode="reduce-overhead") makes, hold
    nothing that happens on the CPU. Meta tensors are traced like those.
    """
    return device if device.type in ("cuda", "meta") else _SEED.device


def seed_to_int(seed: int | Tensor) -> int:
    """The seed as an unsigned Python int."""
    return int(seed.item()) & MASK64 if isinstance(seed, Tensor) else seed


def seed_to_tensor(seed: int | Tensor, device: torch.device = _SEED.device) -> Tensor:
    """The seed as a 0-d int64 tensor; a tensor stays where it is, an int goes to the device."""
    if isinstance(seed, Tensor):
        return seed
    if seed >= 2**63:
        # operator.index makes it a constant under torch.compile, whose own integers have 63 bits and a sign.
        seed = operator.index(seed) - 2**64
    return torch.full((), seed, dtype=torch.int64, device=device)
