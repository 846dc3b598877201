"""`fqvae traverse`, `fqvae codes` and `fqvae plot`: pictures of a run, each as PNG and SVG."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fqvae.runs import Encoded, Run

_SAMPLES = 1000


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands."""
    traverse = _add(
        commands,
        "traverse",
        "draw what each latent does",
        """Draw a latent traversal of a held-out image: each row moves one latent over the codes that it
        really uses, in the order of their values, or, in a continuous model, from the 1st to the 99th
        percentile of its values. And reconstructions of held-out images.""",
    )
    traverse.add_argument(
        "--image", type=int, default=0, metavar="N", help="which held-out image; 0 is the first"
    )
    traverse.add_argument("--steps", type=int, default=8, help="codes in a row, at most (default 8)")
    _add_samples(traverse)
    traverse.set_defaults(run=_traverse)

    codes = _add(
        commands,
        "codes",
        "draw which codes each latent uses",
        """Draw for each latent how often held-out images have each of its codes or, in a continuous model,
        how its values are distributed.""",
    )
    _add_samples(codes)
    codes.set_defaults(run=_codes)

    plot = _add(
        commands,
        "plot",
        "draw training curves and scores",
        """Draw the training curves from metrics.csv and, where `fqvae evaluate` has written metrics.json,
        heat maps of mutual information and importance, factors against latents.""",
    )
    plot.set_defaults(run=_plot)


def _add(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, help_: str, description: str
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name, help=help_, usage=f"fqvae {name} RUN [options]", description=description
    )
    parser.add_argument("--out", type=Path, help="the folder for the pictures; RUN/pictures if not given")
    return parser


def _add_samples(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--samples", type=int, help=f"held-out images that are encoded (default {_SAMPLES}, or all if fewer)"
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="of the model")
    parser.add_argument("--root", type=Path, help="where the images are now, if not where the run says")


def _traverse(options: argparse.Namespace, words: list[str]) -> int:
    from fqvae.evaluation import find_evaluation
    from fqvae.figures.runs import run_traversals
    from fqvae.runs.names import PICTURE, PICTURES
    from fqvae.runs.picture import write_reconstructions

    if options.image < 0 or options.steps < 1:
        raise ValueError(
            f"--image must be at least 0 and --steps at least 1, but were {options.image} and {options.steps}"
        )
    run, encoded, base = _encode(options, words, options.image)
    evaluation, missing = find_evaluation(run.folder, run.sha256)
    out = options.out or run.folder / PICTURES
    _save(run_traversals(run, encoded, base, options.steps, evaluation), out, f"traversal-{options.image}")
    write_reconstructions(run, encoded.index[:16], out / PICTURE)
    print(out / PICTURE)
    _say_missing("which factor each latent tells most about", missing)
    return 0


def _codes(options: argparse.Namespace, words: list[str]) -> int:
    from fqvae.evaluation import find_evaluation
    from fqvae.figures.runs import run_codes
    from fqvae.runs.names import PICTURES

    run, encoded, _ = _encode(options, words, 0)
    evaluation, missing = find_evaluation(run.folder, run.sha256)
    _save(run_codes(run, encoded, evaluation), options.out or run.folder / PICTURES, "codes")
    _say_missing("which factor each latent tells most about", missing)
    return 0


def _plot(options: argparse.Namespace, words: list[str]) -> int:
    from fqvae.evaluation import find_evaluation
    from fqvae.figures import training_curves
    from fqvae.figures.runs import score_heatmaps
    from fqvae.runs import read_columns
    from fqvae.runs.checkpoint import checkpoint_path
    from fqvae.runs.names import CURVES, PICTURES
    from fqvae.runs.run import sha256

    checkpoint = checkpoint_path(_only_run(words))
    folder = checkpoint.parent
    evaluation, missing = find_evaluation(folder, sha256(checkpoint))
    out = options.out or folder / PICTURES
    _save(training_curves(read_columns(folder / CURVES), title=folder.resolve().name), out, "training")
    if evaluation is not None:
        for name, figure in score_heatmaps(evaluation).items():
            _save(figure, out, name)
    _say_missing("heat maps of mutual information and importance", missing)
    return 0


def _only_run(words: list[str]) -> Path:
    if len(words) != 1:
        raise ValueError(f"name one run, a folder or a checkpoint, but there were {len(words)} names")
    return Path(words[0])


def _encode(options: argparse.Namespace, words: list[str], image: int) -> tuple[Run, Encoded, int]:
    """The run; held-out images encoded, the one of that number among them; its place."""
    from fqvae.data import split
    from fqvae.runs import encode, held_out, open_run

    run = open_run(_only_run(words), root=options.root, device=options.device)
    there = len(split(run.dataset).test)
    if image >= there:
        raise ValueError(
            f"--image must be below {there}, the test images of {run.dataset.name}, but was {image}"
        )
    samples = min(_SAMPLES, there) if options.samples is None else options.samples
    index = held_out(run.dataset, samples)
    if image >= samples:
        index = np.append(index, held_out(run.dataset, image + 1)[-1])
    encoded = encode(run, index, progress=sys.stderr.isatty())
    return run, encoded, min(image, samples)


def _save(figure: Figure, out: Path, name: str) -> None:
    from fqvae.figures import save

    for file in save(figure, out / name):
        print(file)


def _say_missing(what: str, why: str) -> None:
    if why:
        print(f"left out: {what}: {why}")
