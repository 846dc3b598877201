"""`fqvae evaluate`."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # scikit-learn takes a second to import
    from fqvae.evaluation import Options

_DESCRIPTION = """Measure trained models on held-out images: reconstruction error, DCI, InfoMEC and others.
Writes metrics.json, importance.csv and nmi.csv in the run's folder and prints the scores; of several runs
also mean and standard deviation over the seeds of each configuration. What was measured before, with the
same options and the same checkpoint, is not measured again."""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "evaluate",
        help="measure trained models on held-out images",
        usage="fqvae evaluate RUN [RUN ...] [options]",
        description=_DESCRIPTION,
        epilog="Only scores of equal sample sizes, classifiers and orders of codes can be compared.",
    )
    parser.add_argument("--train", type=int, default=10_000, help="images to fit classifiers to (10000)")
    parser.add_argument("--test", type=int, default=5_000, help="images to test them on (5000)")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of images, and of the metrics (0)")
    parser.add_argument(
        "--classifier",
        choices=("boosting", "histogram"),
        default="boosting",
        help="of DCI: boosting, the field's; histogram, several times as fast with other scores",
    )
    parser.add_argument(
        "--order",
        choices=("rank", "index"),
        default="rank",
        help="scalar codes by the order of their values, or by their numbers in the codebook",
    )
    parser.add_argument("--jobs", type=int, help="processes; as many as cores if not given")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="of the model")
    parser.add_argument("--root", type=Path, help="where the images are, if not where they were in training")
    parser.add_argument("--again", action="store_true", help="also measure what was measured before")
    parser.set_defaults(run=_evaluate)


def _evaluate(options: argparse.Namespace, words: list[str]) -> int:
    if not words:
        raise ValueError("name a run: fqvae evaluate RUN")
    from fqvae.evaluation import Options, comparison
    from fqvae.evaluation.table import scores_text
    from fqvae.runs.checkpoint import read_checkpoint

    conditions = Options(options.train, options.test, options.seed, options.classifier, options.order)
    # All of them first: not after an hour for the others.
    checkpoints = [read_checkpoint(word).path for word in words]
    try:
        for checkpoint in checkpoints:
            content = None if options.again else _measured(checkpoint, conditions)
            note = " (measured before)" if content is not None else ""
            content = content or _measure(checkpoint, conditions, options)
            print(f"{checkpoint.parent}{note}: {scores_text(content)}\n")
    except KeyboardInterrupt:
        print("interrupted; runs that were measured are not measured again", file=sys.stderr)
        return 130
    if len(checkpoints) > 1:
        print(comparison([checkpoint.parent for checkpoint in checkpoints]).markdown(), end="")
    return 0


def _measured(checkpoint: Path, conditions: Options) -> dict[str, Any] | None:
    """What is known of this checkpoint under these conditions."""
    from fqvae.evaluation import find_evaluation
    from fqvae.runs.run import sha256

    content, _ = find_evaluation(checkpoint.parent, sha256(checkpoint))
    return content if content is not None and content["options"] == asdict(conditions) else None


def _measure(checkpoint: Path, conditions: Options, options: argparse.Namespace) -> dict[str, Any]:
    from fqvae.evaluation import evaluate, read_evaluation, write_evaluation
    from fqvae.runs import open_run

    run = open_run(checkpoint, device=options.device, root=options.root)
    try:
        evaluation = evaluate(run, **asdict(conditions), jobs=options.jobs, progress=sys.stderr.isatty())
    except ValueError as error:
        raise ValueError(f"{checkpoint.parent}: {error}") from error
    write_evaluation(run, evaluation)
    return read_evaluation(run.folder)
