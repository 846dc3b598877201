"""What a call costs the CPU: microseconds of Python and PyTorch around CUDA kernels that are not launched.

    python benchmarks/host_bench.py

Where a GPU is done sooner than the CPU asks for the next thing, this is what a user waits for. CPU tensors
stand for device memory and the launcher does nothing: what a launch costs in the CUDA driver is not in it,
and neither is PyTorch's own allocator of GPU memory. The lines:

    forward         gumbel_quantize without gradients
    both            gumbel_quantize and torch.autograd.grad of quantized and kl by z and codebook
    both, a seed    the same with seed=1: without one, PyTorch's generator is asked for it
    autograd alone  torch.autograd.grad through an autograd.Function of that shape which does nothing

They take turns in short rounds; the table has the fastest round and the median.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fqvae_kernels import gumbel_quantize
from fqvae_kernels.backends import cuda
from fqvae_kernels.backends._cuda.geometry import Device

CALLS = 10  # a round, shorter than the time for which a process runs undisturbed


class NoLaunch:
    """A launcher that serves CPU tensors and launches nothing."""

    def unavailable_reason(self, device: torch.device | None) -> str | None:
        return None

    def describe(self, device: torch.device) -> Device:
        return Device(132, 228 * 1024)

    def launch(self, *launch: object) -> None:
        pass


class Nothing(torch.autograd.Function):
    """Three outputs from two inputs, and their gradients, all of which are there already."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, codebook: Tensor, outputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(z, codebook)
        return tuple(output.detach() for output in outputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        return *ctx.saved_tensors, None


def contenders(rows: int, codes: int) -> dict[str, Callable[[], object]]:
    """What is timed, by the names of the table."""
    z, codebook = torch.randn(rows, requires_grad=True), torch.randn(codes, requires_grad=True)
    plain, upstream = (z.detach(), codebook.detach()), (torch.ones(rows), torch.ones(rows))
    outputs = (torch.randn(rows), torch.zeros(rows, dtype=torch.int64), torch.randn(rows))

    def both(**options: Any) -> object:
        result = gumbel_quantize(z, codebook, temperature=0.5, backend="cuda", **options)
        return torch.autograd.grad((result.quantized, result.kl), (z, codebook), upstream)

    def nothing() -> object:
        quantized, _, kl = Nothing.apply(z, codebook, outputs)
        return torch.autograd.grad((quantized, kl), (z, codebook), upstream)

    return {
        "forward": lambda: gumbel_quantize(*plain, temperature=0.5, backend="cuda"),
        "both": both,
        "both, a seed": lambda: both(seed=1),
        "autograd alone": nothing,
    }


def measure(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Microseconds a call, of each round; the calls take turns."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            begin = time.perf_counter()
            for _ in range(CALLS):
                call()
            times[name].append((time.perf_counter() - begin) / CALLS * 1e6)
    return times


def main(arguments: list[str] | None = None) -> dict[str, list[float]]:
    """Measure and print the table."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("--rows", type=int, default=3072, help="default: 3072")
    parser.add_argument("--codes", type=int, default=64, help="default: 64")
    parser.add_argument("--rounds", type=int, default=500, help="default: 500")
    options = parser.parse_args(arguments)
    threads, before = torch.get_num_threads(), cuda.launcher
    torch.set_num_threads(1)
    cuda.launcher = NoLaunch()
    gc.disable()
    try:
        calls = contenders(options.rows, options.codes)
        measure(calls, 20)
        times = measure(calls, options.rounds)
    finally:
        gc.enable()
        cuda.launcher = before
        torch.set_num_threads(threads)
    print(f"N = {options.rows}, K = {options.codes}, {options.rounds} rounds of {CALLS} calls: us a call")
    print(f"{'':<16}{'fastest':>8}{'median':>8}")
    for name, each in times.items():
        print(f"{name:<16}{min(each):>8.1f}{statistics.median(each):>8.1f}")
    return times


if __name__ == "__main__":
    main()
