"""Compares `fqvae_kernels.gumbel_softmax` with `torch.nn.functional.gumbel_softmax`, eager and compiled.

    python benchmarks/softmax_bench.py [--threads 1] [--hard]

Forward, and forward and backward together, in one process, in turn; compiling is not timed. The table has
medians in milliseconds and, for each of PyTorch's, how many times as long both passes take as ours.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import _report
import torch
from _timing import interleave, load_average
from torch import Tensor

from fqvae_kernels import gumbel_softmax

SHAPES = ((64, 320), (4096, 64), (65_536, 64), (1_048_576, 16))
SECONDS = 6.0  # for a shape

Function = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Line:
    """A shape's medians, in seconds: of the forward pass and of both, by the contender's name."""

    rows: int
    codes: int
    forward: dict[str, float]
    both: dict[str, float]

    def text(self) -> str:
        """A row of the table."""
        times = [
            f"{1e3 * seconds[name]:.3f}" for name in self.forward for seconds in (self.forward, self.both)
        ]
        ours = self.both["ours"]
        ratios = [f"{seconds / ours:.1f}" for name, seconds in self.both.items() if name != "ours"]
        return f"| {self.rows:,} x {self.codes} | " + " | ".join([*times, *ratios]) + " |"


def measure(functions: dict[str, Function], rows: int, codes: int, seconds: float) -> Line:
    """Medians of the functions on one shape."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(rows, codes, generator=generator).requires_grad_()
    incoming = torch.randn(rows, codes, generator=generator)

    def turn(function: Function) -> Callable[[], tuple[float, float]]:
        def both() -> tuple[float, float]:
            begin = time.perf_counter()
            weights = function(logits)
            middle = time.perf_counter()
            torch.autograd.grad(weights, logits, incoming)
            return middle - begin, time.perf_counter() - begin

        return both

    turns = [turn(function) for function in functions.values()]
    for each in turns:  # compiles, and warms up
        each()
        each()
    found = interleave(turns, 200, seconds, least=5)
    medians = [[statistics.median(column) for column in zip(*each, strict=True)] for each in found]
    forward, both = zip(*medians, strict=True)
    names = list(functions)
    return Line(rows, codes, dict(zip(names, forward, strict=True)), dict(zip(names, both, strict=True)))


def contenders(hard: bool) -> dict[str, Function]:
    """Functions of logits by name."""

    def textbook(logits: Tensor) -> Tensor:
        return torch.nn.functional.gumbel_softmax(logits, 1.0, hard)

    return {
        "eager": textbook,
        "compiled": torch.compile(textbook, dynamic=False),
        "ours": lambda logits: gumbel_softmax(logits, 1.0, hard),
    }


def main(argv: list[str] | None = None, shapes: tuple[tuple[int, int], ...] = SHAPES) -> list[Line]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1, help="default: 1")
    parser.add_argument("--hard", action="store_true", help="straight-through one-hot samples")
    options = parser.parse_args(argv)
    if options.threads < 1:
        parser.error(f"--threads was {options.threads}; it must be at least 1")
    warnings.filterwarnings("ignore")  # compilers' own affairs
    torch.set_num_threads(options.threads)
    functions = contenders(options.hard)
    load = load_average()
    heads = [f"{name}, {what}" for name in functions for what in ("forward", "both")]
    heads += [f"{name} / ours" for name in functions if name != "ours"]
    print("| rows x codes | " + " | ".join(heads) + " |")
    print("|---|" + "---:|" * len(heads))
    lines = []
    for rows, codes in shapes:
        torch.compiler.reset()
        lines.append(measure(functions, rows, codes, SECONDS))
        print(lines[-1].text(), flush=True)
    print(f"\nMilliseconds. {_report.measured_on(_report.describe_machine(torch.device('cpu'), load))}")
    return lines


if __name__ == "__main__":
    main()
