"""Trains other people's models with their own quantizer and with ours, and makes a table of both.

    cd benchmarks
    python -m adoption [CASE ...] [--seeds 0 1 2] [--output FILE.json]
    python -m adoption --table FILE.json

Needs diffusers, transformers and pythae besides the package and scikit-learn, whose digits are the images. Of
each run the file has the loss of the task in training (mean of the last tenth of the steps) and in eval() on
held-out data, the codes in use, and the median time of a step. A run that the file has is not made again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import torch

from adoption.cases import CASES, KINDS, Case


def run(case: Case, kind: str, seed: int) -> dict[str, float]:
    """Train once; the numbers of the table."""
    torch.manual_seed(seed)
    task = case.make(kind)
    task.model.train()
    optimizer = torch.optim.Adam(task.model.parameters(), case.learning_rate)
    generator = torch.Generator().manual_seed(seed)
    losses, times = [], []
    for step in range(case.steps):
        batch = task.train[torch.randint(len(task.train), (case.batch_size,), generator=generator)]
        begin = time.perf_counter()
        optimizer.zero_grad()
        loss, own = task.loss(batch, step / case.steps)
        (loss + own).backward()
        optimizer.step()
        times.append(time.perf_counter() - begin)
        losses.append(loss.item())
    task.model.eval()
    with torch.no_grad():
        held_out, codes = task.evaluate(task.test)
    return {
        "training": statistics.fmean(losses[-max(1, case.steps // 10) :]),
        "held_out": held_out,
        "codes": codes,
        "milliseconds": 1e3 * statistics.median(times),
    }


def table(results: dict[str, dict[str, float]]) -> str:
    """Mean and range over the seeds, a line for each model and quantizer."""
    lines = [
        "| model | quantizer | loss in training | loss in eval() | codes in use | ms a step | seeds |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for name, case in CASES.items():
        for kind in KINDS:
            runs = [value for key, value in sorted(results.items()) if key.startswith(f"{name}/{kind}/")]
            if not runs:
                continue

            def shown(key: str, digits: int, runs: list[dict[str, float]] = runs) -> str:
                values = [each[key] for each in runs]
                mean, low, high = statistics.fmean(values), min(values), max(values)
                return f"{mean:.{digits}g} ({low:.{digits}g} to {high:.{digits}g})"

            times = statistics.median(each["milliseconds"] for each in runs)
            lines.append(
                f"| {case.title} | {case.quantizers[kind]} | {shown('training', 3)} | {shown('held_out', 3)} "
                f"| {shown('codes', 3)} | {times:.1f} | {len(runs)} |"
            )
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)} (default: all)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("adoption.json"))
    parser.add_argument("--table", type=Path, metavar="FILE", help="only print the table of this file")
    options = parser.parse_args(argv)
    if options.table is not None:
        print(table(json.loads(options.table.read_text())))
        return 0
    unknown = [name for name in options.cases if name not in CASES]
    if unknown:
        parser.error(f"CASE was {unknown[0]!r}; it may be one of {', '.join(CASES)}")
    torch.set_num_threads(options.threads)
    results = json.loads(options.output.read_text()) if options.output.exists() else {}
    for seed in options.seeds:
        for name in options.cases or CASES:
            for kind in KINDS:
                key = f"{name}/{kind}/{seed}"
                if key not in results:
                    results[key] = run(CASES[name], kind, seed)
                    print(
                        key, {each: float(f"{value:.4g}") for each, value in results[key].items()}, flush=True
                    )
                    options.output.write_text(json.dumps(results, indent=1) + "\n")
    print(table(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
