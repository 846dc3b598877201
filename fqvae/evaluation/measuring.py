"""A run, measured: all of `MEASURES` that apply to it, or those that an earlier evaluation lacks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fqvae.evaluation.inputs import Inputs, available, present_in
from fqvae.evaluation.measures import applicable
from fqvae.evaluation.options import Options
from fqvae.runs import Run


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What `evaluate` returns.

    options: with the numbers of images that were taken, out of so many `available`.
    scores: by the names of `MEASURES`, those that apply to the run. tables: arrays by the names of `TABLES`.
    cautions: sentences, by the names of the measures that mislead.
    seconds: wall time, by part. measured: the names of the measures and tables that were computed now.
    """

    options: Options
    available: int
    scores: dict[str, float]
    tables: dict[str, NDArray[Any]]
    cautions: dict[str, str]
    seconds: dict[str, float]
    measured: tuple[str, ...] = ()


def evaluate(
    run: Run,
    *,
    train: int | None = None,
    test: int | None = None,
    seed: int = 0,
    classifier: str = "boosting",
    order: str | None = None,
    protocol: str = "held-out",
    jobs: int | None = None,
    progress: bool = False,
    known: Mapping[str, Any] | None = None,
) -> Evaluation:
    """Measure a run on images of the test split, which it was not trained on.

    Without labels that gives the measures that need none; with labels but without an image for every
    combination of them, all but `factorvae_score` and `beta_vae_score`, which draw factors and want an image
    for all that they draw. Those two take all images of the set, for 500 votes to fit and 500 to test. Codes
    that are vectors have no order; what reads order (dci, sap, and those two) sees their indices.

    Args:
        run: an open one.
        train, test, seed, classifier, order, protocol: see `Options`.
        jobs: processes; None: as many as cores. Their number changes no score.
        progress: show progress bars on standard error.
        known: an earlier evaluation of the same checkpoint and options, as `read_evaluation` gives it: what
            it holds is kept, the rest is measured.

    Raises:
        TypeError, ValueError: an option out of range; more images than there are; a measure that is not
            finite, as those of codes or an error that are not.
    """
    options = Options(train, test, seed, classifier, order, protocol)
    there = available(run, options)
    options = options.resolved(there, run.dataset.name)
    inputs = Inputs(run, options, jobs=jobs, progress=progress)
    error = inputs.encoding.error
    if not math.isfinite(error):
        raise ValueError(f"{run.checkpoint} reconstructs images with an error of {error}")

    old = {"scores": {}, "tables": {}, "cautions": {}, "seconds": {}} if known is None else known
    scores: dict[str, float] = {}
    tables: dict[str, NDArray[Any]] = {}
    cautions: dict[str, str] = {}
    measured = []
    measures, arrays = applicable(present_in(run))
    for measure in measures:
        if measure.name in old["scores"]:
            scores[measure.name] = old["scores"][measure.name]
            sentence = old["cautions"].get(measure.name, "")
        else:
            with inputs.timed(measure.name):
                scores[measure.name] = float(measure.compute(inputs))
            sentence = measure.caution(inputs)
            measured.append(measure.name)
            if not math.isfinite(scores[measure.name]):
                raise ValueError(f"{run.checkpoint}: {measure.name} is {scores[measure.name]}")
        if sentence:
            cautions[measure.name] = sentence
    for table in arrays:
        if table.name in old["tables"]:
            tables[table.name] = np.array(old["tables"][table.name])
        else:
            tables[table.name] = table.compute(inputs)
            measured.append(table.name)
    seconds = {**old["seconds"], **inputs.seconds}
    return Evaluation(options, there, scores, tables, cautions, seconds, tuple(dict.fromkeys(measured)))
