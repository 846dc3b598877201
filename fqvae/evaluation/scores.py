"""A run's scores: all the measures of `fqvae.metrics` on held-out images, and the files that keep them."""

from __future__ import annotations

import contextlib
import json
import math
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sklearn  # type: ignore[import-untyped]
import torch
from numpy.typing import NDArray

import fqvae
from fqvae.data import has_full_grid, split
from fqvae.evaluation.order import ordered_codes
from fqvae.files import write_together
from fqvae.metrics import (
    GridSampler,
    beta_vae_score,
    code_usage,
    dci,
    explicitness,
    factorvae_score,
    infomec,
    latent_nmi,
    mig,
    modularity,
    sap,
    total_correlation,
)
from fqvae.metrics._arrays import check_choice, check_count, check_seed
from fqvae.runs import Codes, Encoded, Run, encode, encode_codes, held_out, to_flat
from fqvae.runs.names import EVALUATION

FORMAT = 1

CLASSIFIERS = ("boosting", "histogram")
ORDERS = ("rank", "index")
# Votes of factorvae_score and beta_vae_score, to fit and to test. A vote takes 64 or 128 images: the 10,000
# and 5,000 votes of Locatello et al. (ICML 2019) would take three million.
_VOTES = 500
# What a file must have, besides the matrices.
_KEYS = {
    "config": ("seed", "steps", "model.latent.size", "model.latent.codebook_size"),
    "checkpoint": ("sha256", "step"),
    "data": ("name", "size", "factor_names"),
    "options": ("train", "test", "seed", "classifier", "order"),
    "scores": ("mse", "disentanglement", "completeness", "informativeness", "infom", "infoc", "infoe"),
    "seconds": ("dci",),
}


@dataclass(frozen=True)
class Options:
    """What scores depend on besides the model.

    train, test: held-out images that classifiers are fitted to, and tested on. What knows no such division
        is measured on the former, the error on both.
    seed: of the choice of images, and of all metrics.
    classifier: of DCI, see `fqvae.metrics.dci`.
    order: of scalar codes: "rank", by their values, or "index", as they are numbered.
    """

    train: int = 10_000
    test: int = 5_000
    seed: int = 0
    classifier: str = "boosting"
    order: str = "rank"

    def __post_init__(self) -> None:
        check_count("train", self.train, 2)
        check_count("test", self.test, 1)
        check_seed(self.seed)
        check_choice("classifier", self.classifier, CLASSIFIERS)
        check_choice("order", self.order, ORDERS)


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What `evaluate` returns; M latents, F factors, K codes.

    scores: by name. mse, disentanglement, completeness, informativeness_train, informativeness, infom, infoc,
        infoe, infom_corrected, infoc_corrected, mig, sap, modularity, explicitness, factorvae_score,
        beta_vae_score, total_correlation; of models with a codebook also perplexity and codes_used, means
        over the latents.
    importance: float64 (M, F), of DCI. nmi: float64 (F, M), of InfoMEC. nmi_latents: float64 (M, M).
    usage: int64 (M, K), how often each latent takes each code. perplexity: float64 (M,). Both are None
        without a codebook.
    seconds: wall time, by part.
    """

    options: Options
    scores: dict[str, float]
    importance: NDArray[np.float64]
    nmi: NDArray[np.float64]
    nmi_latents: NDArray[np.float64]
    usage: NDArray[np.int64] | None
    perplexity: NDArray[np.float64] | None
    seconds: dict[str, float]


def evaluate(
    run: Run,
    *,
    train: int = 10_000,
    test: int = 5_000,
    seed: int = 0,
    classifier: str = "boosting",
    order: str = "rank",
    jobs: int | None = None,
    progress: bool = False,
) -> Evaluation:
    """Measure a run on images of the test split, which it was not trained on.

    `factorvae_score` and `beta_vae_score` draw factors, and want an image for all that they draw: they take
    all images of the set, for 500 votes to fit and 500 to test. Codes that are vectors have no order; the
    scores that read order (dci, sap, and those two) see their indices.

    Args:
        run: an open one.
        train, test, seed, classifier, order: see `Options`.
        jobs: processes; None: as many as cores. Their number changes no score.
        progress: show progress bars on standard error.

    Raises:
        TypeError, ValueError: an option out of range; more images than the test split has; codes or an error
            that are not finite.
    """
    options = Options(train, test, seed, classifier, order)
    available = len(split(run.dataset).test)
    if train + test > available:
        raise ValueError(
            f"train + test must be at most {available}, the test images of {run.dataset.name}, "
            f"but were {train} + {test}"
        )
    seconds: dict[str, float] = {}
    with _timed(seconds, "encoding"):
        encoded = encode(run, held_out(run.dataset, train + test, seed), progress=progress)
    if not np.isfinite(encoded.error):
        raise ValueError(f"{run.checkpoint} reconstructs images with an error of {encoded.error}")
    codes = _ordered(run, encoded.codes, order)
    fit, factors = codes[:train], encoded.factors[:train]
    sets = (fit, factors, codes[train:], encoded.factors[train:])
    discrete = run.discrete

    with _timed(seconds, "dci"):
        trees = dci(*sets, classifier=classifier, seed=seed, jobs=jobs, progress=progress)
    with _timed(seconds, "infomec"):
        information = infomec(fit, factors, discrete=discrete, seed=seed, jobs=jobs, progress=progress)
    scores = {
        "mse": encoded.error,
        "disentanglement": trees.disentanglement,
        "completeness": trees.completeness,
        "informativeness_train": trees.informativeness_train,
        "informativeness": trees.informativeness_test,
        "infom": information.infom,
        "infoc": information.infoc,
        "infoe": information.infoe,
        "infom_corrected": information.infom_corrected,
        "infoc_corrected": information.infoc_corrected,
    }
    with _timed(seconds, "mig"):
        scores["mig"] = mig(fit, factors, discrete=discrete).score
    with _timed(seconds, "sap"):
        scores["sap"] = sap(*sets, seed=seed).score
    with _timed(seconds, "modularity"):
        scores["modularity"] = modularity(fit, factors, discrete=discrete).score
    with _timed(seconds, "explicitness"):
        scores["explicitness"] = explicitness(*sets, discrete=discrete).test
    sampler = _sampler(run, encoded, order, progress)
    for name, score in (("factorvae_score", factorvae_score), ("beta_vae_score", beta_vae_score)):
        with _timed(seconds, name):
            scores[name] = score(sampler, train=_VOTES, test=_VOTES, seed=seed).test
    with _timed(seconds, "total_correlation"):
        scores["total_correlation"] = total_correlation(fit, discrete=discrete)
    with _timed(seconds, "latent_nmi"):
        nmi_latents = latent_nmi(fit, discrete=discrete)

    usage = code_usage(encoded.codes[:train], run.config.model.latent.codebook_size) if discrete else None
    if usage is not None:
        scores["perplexity"] = float(usage.perplexity.mean())
        scores["codes_used"] = float(usage.used.mean())
    return Evaluation(
        options,
        scores,
        trees.importance,
        information.nmi,
        nmi_latents,
        None if usage is None else usage.counts,
        None if usage is None else usage.perplexity,
        seconds,
    )


def _ordered(run: Run, codes: Codes, order: str) -> Codes:
    return ordered_codes(run, codes) if order == "rank" else codes


def _sampler(run: Run, encoded: Encoded, order: str, progress: bool) -> GridSampler:
    """All images of the set, each encoded when it is first drawn."""
    dataset = run.dataset
    assert has_full_grid(dataset)
    known = np.zeros(len(run.dataset), dtype=bool)
    table = np.zeros((len(run.dataset), encoded.codes.shape[1]), dtype=encoded.codes.dtype)
    known[encoded.index], table[encoded.index] = True, encoded.codes

    def codes(factors: NDArray[np.int64]) -> Codes:
        index = dataset.index(factors).numpy()
        new = np.unique(index[~known[index]])
        if len(new):
            known[new], table[new] = True, encode_codes(run, new, progress=progress)
        return _ordered(run, table[index], order)

    return GridSampler(codes, run.dataset.factor_sizes)


def write_evaluation(run: Run, evaluation: Evaluation) -> None:
    """Write metrics.json, importance.csv and nmi.csv in the run's folder: all that `read_evaluation` gives.

    Raises OSError if they cannot be written; what was there is kept.
    """
    usage, perplexity = evaluation.usage, evaluation.perplexity
    names = run.dataset.factor_names
    latents = list(range(len(evaluation.importance)))
    content = {
        "format": FORMAT,
        "versions": {
            "fqvae": fqvae.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
            "scikit-learn": sklearn.__version__,
        },
        "model": run.config.model.name,
        "config": to_flat(run.config),
        "checkpoint": {"file": run.checkpoint.name, "sha256": run.sha256, "step": run.step},
        "data": {
            "name": run.dataset.name,
            "size": run.dataset.image_shape[1],
            "factor_names": list(names),
            "factor_sizes": list(run.dataset.factor_sizes),
        },
        "options": asdict(evaluation.options),
        "scores": evaluation.scores,
        "perplexity": None if perplexity is None else perplexity.tolist(),
        "codes_used": None if usage is None else (usage > 0).sum(1).tolist(),
        "usage": None if usage is None else usage.tolist(),
        "importance": evaluation.importance.tolist(),
        "nmi": evaluation.nmi.tolist(),
        "nmi_latents": evaluation.nmi_latents.tolist(),
        "seconds": evaluation.seconds,
    }
    lines = ",\n".join(
        f"{json.dumps(key)}: {json.dumps(value, allow_nan=False)}" for key, value in content.items()
    )
    write_together(
        {
            run.folder / "importance.csv": _csv("latent", names, latents, evaluation.importance),
            run.folder / "nmi.csv": _csv("factor", latents, names, evaluation.nmi),
            run.folder / EVALUATION: f"{{\n{lines}\n}}\n",
        }
    )


def read_evaluation(folder: str | Path) -> dict[str, Any]:
    """What `write_evaluation` wrote in metrics.json, of a run's folder.

    Keys: format; versions; model; config, flat; checkpoint: file, sha256, step; data: name, size,
    factor_names, factor_sizes; options; scores; seconds; and as lists, of `Evaluation`'s shapes: importance,
    nmi, nmi_latents, and usage, perplexity, codes_used (M,), which are None without a codebook.

    Raises FileNotFoundError; ValueError for a file that is damaged or of another format.
    """
    path = Path(folder) / EVALUATION
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}; fqvae evaluate {folder} writes it")
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}; fqvae evaluate {folder} writes it anew") from error
    if not isinstance(content, dict) or "format" not in content:
        raise ValueError(f"{path} was not written by fqvae evaluate")
    if content["format"] != FORMAT:
        raise ValueError(f"{path} has the format {content['format']!r}, but this version reads {FORMAT}")
    problem = _problem(content)
    if problem is not None:
        raise ValueError(f"{path} is damaged: {problem}; fqvae evaluate {folder} writes it anew")
    return content


def find_evaluation(folder: Path, sha256: str) -> tuple[dict[str, Any] | None, str]:
    """What `fqvae evaluate` has found about a checkpoint; or None, and why there is nothing.

    folder: of the run. sha256: of the checkpoint.
    """
    try:
        content = read_evaluation(folder)
    except (FileNotFoundError, ValueError) as error:
        return None, str(error)
    if content["checkpoint"]["sha256"] != sha256:
        step = content["checkpoint"]["step"]
        return None, (
            f"{folder / EVALUATION} is of another checkpoint, of step {step:,}; "
            f"fqvae evaluate {folder} writes it anew"
        )
    return content, ""


def _problem(content: dict[str, Any]) -> str | None:
    """What is wrong with the content of a file, if anything."""
    if not isinstance(content.get("model"), str):
        return "model is missing"
    for part, keys in _KEYS.items():
        if not isinstance(content.get(part), dict):
            return f"{part} is missing"
        for key in keys:
            if key not in content[part]:
                return f"{part} has no {key}"
    for name, score in content["scores"].items():
        if not isinstance(score, float) or not math.isfinite(score):
            return f"the score {name} is {score!r}"
    latents, factors = content["config"]["model.latent.size"], len(content["data"]["factor_names"])
    codes = content["config"]["model.latent.codebook_size"]
    shapes: dict[str, tuple[int, ...]] = {
        "importance": (latents, factors),
        "nmi": (factors, latents),
        "nmi_latents": (latents, latents),
    }
    if "codes_used" in content["scores"]:
        shapes |= {"perplexity": (latents,), "codes_used": (latents,), "usage": (latents, codes)}
    for key, shape in shapes.items():
        try:
            found = np.array(content.get(key), dtype=np.float64).shape
        except (TypeError, ValueError):
            return f"{key} is not a table of numbers"
        if found != shape:
            return f"{key} has the shape {found}, not {shape}"
    return None


def _csv(corner: str, columns: Sequence[object], rows: Sequence[object], matrix: NDArray[np.float64]) -> str:
    lines = [[corner, *columns], *([row, *values] for row, values in zip(rows, matrix.tolist(), strict=True))]
    return "".join(",".join(map(str, line)) + "\n" for line in lines)


@contextlib.contextmanager
def _timed(seconds: dict[str, float], part: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[part] = time.perf_counter() - start
