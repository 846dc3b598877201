"""`fqvae evaluate`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # scikit-learn takes a second to import
    from fqvae.evaluation import Options

_DESCRIPTION = """Measure trained models on held-out images: reconstruction error, DCI, InfoMEC and others;
without labels, what needs none. Prints the measures and what they say went wrong, and writes metrics.json,
importance.csv and nmi.csv in the run's folder; of several runs also mean and standard deviation over the
seeds of each configuration. Of the same options and the same checkpoint only those measures are computed that
are missing, or of an older version than this program's."""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "evaluate",
        help="measure trained models on held-out images",
        usage="fqvae evaluate RUN [RUN ...] [options]",
        description=_DESCRIPTION,
        epilog="Only measures of equal sample sizes, classifiers, orders and protocols can be compared.",
    )
    few = "where there are fewer: all, in the ratio 2:1"
    parser.add_argument("--train", type=int, help=f"images to fit classifiers to (10000; {few})")
    parser.add_argument("--test", type=int, help="images to test them on (5000)")
    parser.add_argument(
        "--seed", type=int, default=0, help="of the choice of images, and of the measures (0)"
    )
    parser.add_argument(
        "--classifier",
        choices=("boosting", "histogram"),
        default="boosting",
        help="of DCI: boosting, the field's; histogram, several times as fast with other values",
    )
    parser.add_argument(
        "--order",
        choices=("rank", "index"),
        help="scalar codes by the order of their values (default), or by their numbers in the codebook",
    )
    parser.add_argument(
        "--protocol",
        choices=("held-out", "authors"),
        default="held-out",
        help="authors: as the authors of arXiv 2409.14851 measure; docs/protocol.md says what differs",
    )
    parser.add_argument("--jobs", type=int, help="processes; as many as cores if not given")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="of the model")
    parser.add_argument("--root", type=Path, help="where the images are, if not where they were in training")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="folder for the results, in place of the run's; of several runs a folder in it for each",
    )
    parser.add_argument("--again", action="store_true", help="also measure what was measured before")
    parser.set_defaults(run=_evaluate)


def _evaluate(options: argparse.Namespace, words: list[str]) -> int:
    if not words:
        raise ValueError("name a run: fqvae evaluate RUN")
    try:
        return _evaluate_all(options, words)
    except KeyboardInterrupt:
        print("fqvae: interrupted; runs that were measured are not measured again", file=sys.stderr)
        return 130


def _evaluate_all(options: argparse.Namespace, words: list[str]) -> int:
    from fqvae.evaluation import Options, comparison
    from fqvae.files import check_writable
    from fqvae.runs.checkpoint import read_checkpoint

    conditions = Options(
        options.train, options.test, options.seed, options.classifier, options.order, options.protocol
    )
    # All of them first: not after an hour for the others.
    checkpoints = [read_checkpoint(word).path for word in words]
    folders = _folders(checkpoints, options.out)
    known = [
        None if options.again else _known(checkpoint, folder, conditions, options.root)
        for checkpoint, folder in zip(checkpoints, folders, strict=True)
    ]
    for folder, content in zip(folders, known, strict=True):
        if content is None or content["missing"]:
            check_writable(folder)
    for checkpoint, folder, content in zip(checkpoints, folders, known, strict=True):
        if content is None or content["missing"]:
            _measure(checkpoint, folder, conditions, content, options)
        else:
            _print(checkpoint.parent, content, "measured before")
    if len(checkpoints) > 1:
        print(comparison(folders).markdown(), end="")
    return 0


def _folders(checkpoints: Sequence[Path], out: Path | None) -> list[Path]:
    """Where the results of each go. Raises ValueError for two that would go to the same folder."""
    if out is None:
        return [checkpoint.parent for checkpoint in checkpoints]
    if len(checkpoints) == 1:
        return [out]
    runs: dict[str, Path] = {}
    for run in (checkpoint.parent.resolve() for checkpoint in checkpoints):
        if runs.setdefault(run.name, run) != run:
            raise ValueError(f"{runs[run.name]} and {run} would both write in {out / run.name}")
    return [out / checkpoint.parent.resolve().name for checkpoint in checkpoints]


def _known(checkpoint: Path, folder: Path, conditions: Options, root: Path | None) -> dict[str, Any] | None:
    """What is known of this checkpoint under these conditions."""
    from fqvae.evaluation import find_evaluation
    from fqvae.runs.run import sha256

    content, _ = find_evaluation(folder, sha256(checkpoint))
    if content is None or not conditions.same(content) or _labelled_anew(checkpoint, content, root):
        return None
    return content


def _labelled_anew(checkpoint: Path, content: dict[str, Any], root: Path | None) -> bool:
    """Whether the images have other labels than those that were measured with, as far as can be told."""
    from fqvae.runs.checkpoint import read_checkpoint
    from fqvae.runs.data import digest_of_labels, open_data

    if not content["data"].get("labels"):  # an old file, or a set whose labels do not change
        return False
    try:
        dataset = open_data(read_checkpoint(checkpoint).config.data, root)
        return digest_of_labels(dataset) != str(content["data"]["labels"])
    except Exception:  # of somebody's own set anything may come; it is told when the set is wanted
        return False


def _measure(
    checkpoint: Path,
    folder: Path,
    conditions: Options,
    known: dict[str, Any] | None,
    options: argparse.Namespace,
) -> None:
    from fqvae.evaluation import contents, evaluate, write_evaluation
    from fqvae.runs import open_run

    run = open_run(checkpoint, device=options.device, root=options.root)
    try:
        evaluation = evaluate(
            run, **asdict(conditions), jobs=options.jobs, progress=sys.stderr.isatty(), known=known
        )
    except ValueError as error:
        raise ValueError(f"{checkpoint.parent}: {error}") from error
    note = "" if known is None else f"measured before, but for {', '.join(evaluation.measured)}"
    _print(checkpoint.parent, contents(run, evaluation), note)  # first: writing may fail
    write_evaluation(run, evaluation, folder)


def _print(run: Path, content: dict[str, Any], note: str) -> None:
    from fqvae.evaluation import diagnose
    from fqvae.evaluation.diagnosis import diagnosis_text
    from fqvae.evaluation.table import scores_text

    found = diagnosis_text(diagnose(content, _columns(run)))
    print(f"{run}{f' ({note})' if note else ''}: {scores_text(content)}\n{found}\n", flush=True)


def _columns(run: Path) -> dict[str, list[float]]:
    """Of metrics.csv; none where there is no such file, or a damaged one, which is said."""
    from fqvae.runs import read_columns
    from fqvae.runs.names import CURVES

    try:
        return read_columns(run / CURVES) if (run / CURVES).is_file() else {}
    except ValueError as error:
        print(f"{error}; nothing is said of the curves", file=sys.stderr)
        return {}
