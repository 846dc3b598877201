"""`fqvae compare`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

_DESCRIPTION = """Write one HTML file that shows trained models side by side: measures, the settings in which
they differ, training curves, and what each latent does to the same image. It needs no network and no other
file. Run `fqvae evaluate RUN RUN ...` first: that measures."""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "compare",
        help="write a page that shows trained models side by side",
        usage="fqvae compare RUN RUN ... [options]",
        description=_DESCRIPTION,
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE", default=Path("comparison.html"), help="(%(default)s)"
    )
    parser.add_argument("--steps", type=int, default=8, help="of a latent (%(default)s)")
    parser.add_argument(
        "--samples", type=int, default=500, help="held-out images to count codes on (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the choice of the image (%(default)s)")
    parser.add_argument("--root", type=Path, help="where the images are now, if not where the runs say")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="cpu")
    parser.set_defaults(run=_compare)


def _compare(options: argparse.Namespace, words: list[str]) -> int:
    if len(words) < 2:
        raise ValueError(f"name at least two runs' folders, but was {' '.join(words) or 'nothing'!r}")
    from fqvae.report.compare import Compared, build_comparison
    from fqvae.runs import read_checkpoint, to_flat
    from fqvae.runs.config import NO_SETTINGS

    for word in words:
        if Path(word).is_file():
            raise ValueError(f"a run is named by its folder, but {word} is a file")
    checkpoints = [read_checkpoint(word) for word in words]
    folders = [checkpoint.path.parent for checkpoint in checkpoints]
    labels = _labels(folders)
    groups: dict[str, str] = {}
    runs = []
    for folder, label, checkpoint in zip(folders, labels, checkpoints, strict=True):
        flat = {key: value for key, value in to_flat(checkpoint.config).items() if key not in NO_SETTINGS}
        group = groups.setdefault(f"{flat} {checkpoint.step}", label)  # named after its first run
        runs.append(Compared(folder, label, group))
    order = list(groups.values())
    out = build_comparison(
        sorted(runs, key=lambda run: order.index(run.group)),
        options.out,
        title=f"{' and '.join(labels)}" if len(labels) == 2 else f"{len(labels)} runs",
        steps=options.steps,
        samples=options.samples,
        seed=options.seed,
        root=options.root,
        device=options.device,
        progress=sys.stderr.isatty(),
    )
    print(f"the comparison is {out}")
    return 0


def _labels(folders: Sequence[Path]) -> list[str]:
    """Names that tell the folders apart: as many of the last parts of their paths as it takes.

    Raises ValueError for a folder that is named twice.
    """
    parts = [folder.resolve().parts for folder in folders]
    if len(set(parts)) < len(parts):
        twice = next(folder for place, folder in enumerate(folders) if parts[place] in parts[:place])
        raise ValueError(f"name each run once, but {twice} was named twice")
    taken = 1
    while len({each[-taken:] for each in parts}) < len(parts):
        taken += 1
    return ["/".join(each[-taken:]) for each in parts]
