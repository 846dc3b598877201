"""`fqvae traverse`, `fqvae codes` and `fqvae plot`: pictures of a run, as PNG and SVG, one also as GIF."""

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
_NO_LABELS = "the images have no labels"


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands."""
    traverse = _add(
        commands,
        "traverse",
        "draw what each latent does",
        """Draw a latent traversal of a held-out image: each row moves one latent over the codes that it
        really uses, in the order of their values, or, in a continuous model, from the 1st to the 99th
        percentile of its values. The same as a GIF, in which all latents move together. And
        reconstructions of held-out images.""",
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
        "draw training curves and matrices of the measures",
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
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="where the pictures go; RUN/pictures if not given"
    )
    return parser


def _add_samples(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--samples", type=int, help=f"held-out images that are encoded (default {_SAMPLES}, or all if fewer)"
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="of the model")
    parser.add_argument("--root", type=Path, help="where the images are now, if not where the run says")


def _traverse(options: argparse.Namespace, words: list[str]) -> int:
    from fqvae.evaluation import find_evaluation
    from fqvae.figures.runs import run_animation, run_traversals
    from fqvae.files import write_whole
    from fqvae.runs.names import PICTURE
    from fqvae.runs.picture import write_reconstructions

    if options.image < 0 or options.steps < 1:
        raise ValueError(
            f"--image must be at least 0 and --steps at least 1, but were {options.image} and {options.steps}"
        )
    run, encoded, base, out = _encode(options, words, options.image)
    evaluation, missing = find_evaluation(run.folder, run.sha256)
    _save(run_traversals(run, encoded, base, options.steps, evaluation), out, f"traversal-{options.image}")
    moving = out / f"traversal-{options.image}.gif"
    write_whole(moving, run_animation(run, encoded, base, evaluation=evaluation))
    print(moving)
    write_reconstructions(run, encoded.index[:16], out / PICTURE)
    print(out / PICTURE)
    _say_missing("which factors latents are named after", _labels(run) or missing)
    return 0


def _codes(options: argparse.Namespace, words: list[str]) -> int:
    from fqvae.evaluation import find_evaluation
    from fqvae.figures.runs import run_codes

    run, encoded, _, out = _encode(options, words, 0)
    evaluation, missing = find_evaluation(run.folder, run.sha256)
    _save(run_codes(run, encoded, evaluation), out, "codes")
    _say_missing("which factors latents are named after", _labels(run) or missing)
    return 0


def _plot(options: argparse.Namespace, words: list[str]) -> int:
    from fqvae.evaluation import find_evaluation
    from fqvae.figures import training_curves
    from fqvae.figures.runs import score_heatmaps
    from fqvae.runs import read_columns
    from fqvae.runs.checkpoint import read_checkpoint
    from fqvae.runs.names import CURVES
    from fqvae.runs.run import sha256

    checkpoint = read_checkpoint(_only_run(words)).path  # a damaged one is an error here too
    folder = checkpoint.parent
    columns = read_columns(folder / CURVES)
    out = _folder(options, folder)
    evaluation, missing = find_evaluation(folder, sha256(checkpoint))
    _save(training_curves(columns, title=folder.resolve().name), out, "training")
    if evaluation is not None:
        for name, figure in score_heatmaps(evaluation).items():
            _save(figure, out, name)
    no_labels = evaluation is not None and not evaluation["data"]["factor_names"]
    _say_missing("heat maps of mutual information and importance", _NO_LABELS if no_labels else missing)
    return 0


def _only_run(words: list[str]) -> Path:
    if len(words) != 1:
        raise ValueError(f"name one run, a folder or a checkpoint, but there were {len(words)} names")
    return Path(words[0])


def _encode(options: argparse.Namespace, words: list[str], image: int) -> tuple[Run, Encoded, int, Path]:
    """The run; held-out images encoded, that of the number among them; its place; the folder to write in."""
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
    out = _folder(options, run.folder)
    if image >= samples:
        index = np.append(index, held_out(run.dataset, image + 1)[-1])
    encoded = encode(run, index, progress=sys.stderr.isatty())
    return run, encoded, min(image, samples), out


def _folder(options: argparse.Namespace, run: Path) -> Path:
    """Where the pictures go. Raises OSError, before the work, if nothing can be written there."""
    from fqvae.files import check_writable
    from fqvae.runs.names import PICTURES

    out: Path = options.out or run / PICTURES
    check_writable(out)
    return out


def _save(figure: Figure, out: Path, name: str) -> None:
    from fqvae.figures import save

    for file in save(figure, out / name):
        print(file)


def _labels(run: Run) -> str:
    """Why no latent has a name, where that is because of the images."""
    return "" if run.dataset.factor_names else _NO_LABELS


def _say_missing(what: str, why: str) -> None:
    if why:
        print(f"left out: {what}: {why}")
