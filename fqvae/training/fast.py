"""What makes a step faster: bfloat16 autocast, channels-last convolutions, torch.compile."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from fqvae.models.config import NetworkConfig

FastMode = Literal["auto", "on", "off"]


@dataclass(frozen=True)
class Fast:
    """Which of the three are in use."""

    bfloat16: bool = False
    channels_last: bool = False
    compile: bool = False

    def prepare(self, networks: Iterable[nn.Module]) -> None:
        """Lay out the networks' weights, and have them compiled when they are first called."""
        for network in networks:
            if self.channels_last:
                network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            if self.compile:
                # Sizes do not change: the discriminator sees two of them, the others one.
                network.compile(dynamic=False)


def choose_fast(mode: FastMode, network: NetworkConfig, cuda: bool) -> Fast:
    """What `--fast` means on this machine.

    "off": none of the three. "on": all, but bfloat16 only where the processor has instructions for it, and
    no compiling of the light network on a CPU, which gains nothing by it. "auto": "on" for a GPU; on a CPU
    channels-last alone, which needs no compiling and stays in float32, so that runs repeat each other bit for
    bit. benchmarks/train_bench.py measures what each of the three gives.
    """
    if mode == "off":
        return Fast()
    if mode == "auto" and not cuda:
        return Fast(channels_last=True)
    return Fast(bfloat16=has_bfloat16(cuda), channels_last=True, compile=cuda or network.kind == "official")


def has_bfloat16(cuda: bool) -> bool:
    """Whether the processor multiplies bfloat16 matrices faster than float32 ones."""
    if cuda:
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    cpu = torch.backends.cpu.get_cpu_capability()
    return cpu.startswith("AVX512") and bool(torch.cpu._is_avx512_bf16_supported())
