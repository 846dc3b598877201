"""`fqvae report`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

_DESCRIPTION = """Write one HTML file about a trained model: what each latent does, to be explored with
sliders, its measures, reconstructions, use of the codes, and training curves. It needs no network and no
other file. Run `fqvae evaluate RUN` first: that measures."""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "report",
        help="write a page about a trained model",
        usage="fqvae report RUN [options]",
        description=_DESCRIPTION,
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="by default report.html in the run's folder")
    parser.add_argument("--images", type=int, help="of the explorer (8, or all that are encoded)")
    parser.add_argument("--steps", type=int, default=12, help="of a slider (%(default)s)")
    parser.add_argument(
        "--samples", type=int, default=2_000, help="held-out images to count codes on (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the choice of images (%(default)s)")
    parser.add_argument("--root", type=Path, help="where the images are now, if not where the run says")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.set_defaults(run=_report)


def _report(options: argparse.Namespace, words: list[str]) -> int:
    if len(words) != 1:
        raise ValueError(
            f"name one run's folder or checkpoint, not {len(words)}: {' '.join(words)}".rstrip(": ")
        )
    from fqvae.files import check_writable
    from fqvae.report import build_report
    from fqvae.runs import open_run
    from fqvae.runs.checkpoint import checkpoint_path
    from fqvae.runs.names import REPORT

    out = options.out or checkpoint_path(words[0]).parent / REPORT
    check_writable(out.parent)
    run = open_run(words[0], device=options.device, root=options.root)
    build_report(
        run,
        out,
        images=options.images,
        steps=options.steps,
        samples=options.samples,
        seed=options.seed,
        progress=sys.stderr.isatty(),
    )
    print(f"the report is {out}")
    return 0
