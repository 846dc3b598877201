"""The table of measures: numbers that judge a run. A new one is a function and a line here.

Raise a measure's version when its values change for the same run: evaluations that hold an older one then
know that it is old, and `fqvae evaluate` measures it anew.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fqvae.evaluation.inputs import Inputs
from fqvae.metrics import (
    beta_vae_score,
    explicitness,
    factorvae_score,
    mig,
    modularity,
    sap,
    total_correlation,
)
from fqvae_kernels import ScalarQuantizer

# Votes of factorvae_score and beta_vae_score, to fit and to test. A vote takes 64 or 128 images: the 10,000
# and 5,000 votes of Locatello et al. (ICML 2019) would take three million.
_VOTES = 500
# Samples for each column of the regression of InfoE, below which it is warned of (docs/diagnosis.md).
SAMPLES_PER_COLUMN = 10

GROUPS = ("DCI", "InfoMEC", "Others", "Codes and images")


def _no_caution(inputs: Inputs) -> str:
    return ""


@dataclass(frozen=True)
class Measure:
    """A number that judges a run.

    name: in metrics.json, in tables, and in the output. label, meaning: as a report says them; the meaning in
    a few words. range: least and largest value, infinities among them. group: one of `GROUPS`. version: of
    the values. compute: the value, a finite number. needs: what a run must have, of `present`'s names.
    headline: whether it is among the measures that tables of runs show. short: its name there. decimals:
    how many are shown; None: three digits. caution: a sentence where the value misleads, else "".
    """

    name: str
    label: str
    meaning: str
    range: tuple[float, float]
    group: str
    version: int
    compute: Callable[[Inputs], float]
    needs: tuple[str, ...] = ()
    headline: bool = False
    short: str = ""
    decimals: int | None = 3
    caution: Callable[[Inputs], str] = _no_caution

    def text(self, value: float) -> str:
        """The value as it is shown."""
        return f"{value:.3g}" if self.decimals is None else f"{value:.{self.decimals}f}"


@dataclass(frozen=True)
class Table:
    """Numbers that belong to a run and judge nothing by themselves; name, version, compute, needs as above.

    shape: of the array, in the letters M (latents), F (factors), K (codes).
    """

    name: str
    shape: str
    version: int
    compute: Callable[[Inputs], Any]
    needs: tuple[str, ...] = ()


def _latent_nmi(inputs: Inputs) -> float:
    """The mean over pairs of latents; 0 for a single one."""
    nmi = inputs.latent_nmi
    latents = len(nmi)
    return float((nmi.sum() - np.trace(nmi)) / (latents * (latents - 1))) if latents > 1 else 0.0


def _explained(inputs: Inputs) -> float:
    """1 - error/variance; 0 for images that are all the same."""
    variance = inputs.picture_variance
    return 1 - inputs.encoding.error / variance if variance > 0 else 0.0


def _capacity(inputs: Inputs) -> float:
    """Bits that all latents together can carry, by what their codebooks and their estimator let through.

    A Gumbel-Softmax sample of a scalar confuses near codes (`ScalarQuantizer.capacity`); logits and nearest
    codes confuse none, so that a latent has log2 of the number of its different values.
    """
    latent = inputs.run.config.model.latent
    if latent.kind == "scalar" and latent.estimator != "nearest":
        # A precision s of the distances is a factor sqrt(s) of the codes.
        scaled = [book * factor for book, factor in zip(inputs.books, inputs.distance_factors, strict=True)]
        books = {book.tobytes(): book for book in scaled}
        bits = {
            key: float(ScalarQuantizer(len(book), init=_tensor(book)).capacity())
            for key, book in books.items()
        }
        return sum(bits[book.tobytes()] for book in scaled)
    return float(sum(math.log2(len(np.unique(book))) for book in inputs.books))


def _at_ends(inputs: Inputs) -> float:
    """The share of images with the smallest or largest code; latents with one code in use are left out."""
    shares = [
        counts[_ends(book)].sum() / counts.sum()
        for book, counts, used in zip(inputs.books, inputs.usage.counts, inputs.usage.used, strict=True)
        if used > 1 and book.min() < book.max()
    ]
    return float(np.mean(shares)) if shares else 0.0


def _end_load(inputs: Inputs) -> NDArray[np.float64]:
    """Of each latent, images of an end code, as a multiple of those of a code between them, (M,).

    There are as many codes between as their perplexity says; 0 for a latent that uses none.
    """
    loads = np.zeros(len(inputs.books))
    for latent, (book, counts) in enumerate(zip(inputs.books, inputs.usage.counts, strict=True)):
        ends, between = counts[_ends(book)].sum(), counts[~_ends(book)]
        if between.any():
            shares = between[between > 0] / between.sum()
            loads[latent] = ends / 2 / (between.sum() / np.exp(-(shares * np.log(shares)).sum()))
    return loads


def _ends(book: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which codes of a codebook are its smallest and its largest ones."""
    ends: NDArray[np.bool_] = (book == book.min()) | (book == book.max())
    return ends


def _infoe_caution(inputs: Inputs) -> str:
    samples = len(inputs.fit)
    columns = int(sum(len(np.unique(column)) for column in inputs.fit.T if inputs.discrete))
    columns = columns if inputs.discrete else inputs.fit.shape[1]
    if samples >= SAMPLES_PER_COLUMN * columns:
        return ""
    return (
        f"infoe is too high here and cannot be compared: its regression fits {columns:,} columns to "
        f"{samples:,} samples, and below {SAMPLES_PER_COLUMN} samples a column codes that know nothing reach "
        f"0.2 to 1; take at least {SAMPLES_PER_COLUMN * columns:,} samples (--train)"
    )


def _tensor(array: Any) -> Any:
    import torch

    return torch.from_numpy(np.ascontiguousarray(array))


def _votes(score: Callable[..., Any]) -> Callable[[Inputs], float]:
    def compute(inputs: Inputs) -> float:
        return float(score(inputs.sampler, train=_VOTES, test=_VOTES, seed=inputs.seed).test)

    return compute


_SHARE = (0.0, 1.0)
_POSITIVE = (0.0, math.inf)
_LABELS, _GRID, _CODES, _SCALARS = ("labels",), ("labels", "grid"), ("codes",), ("scalar codes",)
_ONE_FACTOR = "how exclusively each latent describes one factor"
_ONE_LATENT = "how exclusively each factor is described by one latent"
_CHANCE = "without the information that chance explains"

# fmt: off
MEASURES: tuple[Measure, ...] = (
    Measure("disentanglement", "disentanglement", _ONE_FACTOR, _SHARE, "DCI", 1,
            lambda x: x.dci.disentanglement, _LABELS, headline=True, short="D"),
    Measure("completeness", "completeness", _ONE_LATENT, _SHARE, "DCI", 1,
            lambda x: x.dci.completeness, _LABELS, headline=True, short="C"),
    Measure("informativeness", "informativeness", "factors predicted right from the codes of new images",
            _SHARE, "DCI", 1, lambda x: x.dci.informativeness_test, _LABELS, headline=True, short="I"),
    Measure("informativeness_train", "informativeness, fitted images", "the same on the images fitted to",
            _SHARE, "DCI", 1, lambda x: x.dci.informativeness_train, _LABELS),
    Measure("infom", "modularity (InfoM)", _ONE_FACTOR, _SHARE, "InfoMEC", 1,
            lambda x: x.infomec.infom, _LABELS, headline=True, short="InfoM"),
    Measure("infom_corrected", "modularity, corrected", _CHANCE, _SHARE, "InfoMEC", 1,
            lambda x: x.infomec.infom_corrected, _LABELS),
    Measure("infoc", "compactness (InfoC)", _ONE_LATENT, _SHARE, "InfoMEC", 1,
            lambda x: x.infomec.infoc, _LABELS, headline=True, short="InfoC"),
    Measure("infoc_corrected", "compactness, corrected", _CHANCE, _SHARE, "InfoMEC", 1,
            lambda x: x.infomec.infoc_corrected, _LABELS),
    Measure("infoe", "explicitness (InfoE)", "what a linear model reads off the codes", _SHARE, "InfoMEC", 1,
            lambda x: x.infomec.infoe, _LABELS, headline=True, short="InfoE", caution=_infoe_caution),
    Measure("mig", "MIG", "lead of the latent that tells most of a factor, in information", _SHARE,
            "Others", 1, lambda x: mig(x.fit, x.factors, discrete=x.discrete).score, _LABELS),
    Measure("sap", "SAP", "the same lead, in the error of a linear predictor", _SHARE, "Others", 1,
            lambda x: sap(*x.sets, seed=x.seed).score, _LABELS),
    Measure("modularity", "modularity", "Ridgeway and Mozer's", _SHARE, "Others", 1,
            lambda x: modularity(x.fit, x.factors, discrete=x.discrete).score, _LABELS),
    Measure("explicitness", "explicitness", "Ridgeway and Mozer's", _SHARE, "Others", 1,
            lambda x: explicitness(*x.sets, discrete=x.discrete).test, _LABELS),
    Measure("factorvae_score", "FactorVAE score", "a fixed factor recognised by the latent that varies least",
            _SHARE, "Others", 1, _votes(factorvae_score), _GRID),
    Measure("beta_vae_score", "\u03b2-VAE score", "a fixed factor recognised by a linear classifier",
            _SHARE, "Others", 1, _votes(beta_vae_score), _GRID),
    Measure("total_correlation", "total correlation", "of the codes, in nats; 0 for independent latents",
            _POSITIVE, "Others", 1, lambda x: total_correlation(x.fit, discrete=x.discrete)),
    Measure("latent_nmi", "information among latents", "normalised, mean over the pairs of latents",
            _SHARE, "Others", 1, _latent_nmi),
    Measure("straight_through_gap", "straight-through gap",
            "error of soft samples against that of codes; smaller is better, without labels",
            _POSITIVE, "Codes and images", 1, lambda x: x.straight_through_gap, ("soft samples",),
            decimals=None),
    Measure("perplexity", "perplexity", "effective number of codes, mean over the latents",
            (1.0, math.inf), "Codes and images", 1, lambda x: float(x.usage.perplexity.mean()), _CODES,
            decimals=1),
    Measure("codes_used", "codes used", "mean over the latents", (1.0, math.inf), "Codes and images", 1,
            lambda x: float(x.usage.used.mean()), _CODES, decimals=1),
    Measure("capacity", "capacity", "bits that all latents can carry together", _POSITIVE,
            "Codes and images", 1, _capacity, _SCALARS, decimals=1),
    Measure("codes_at_ends", "codes at the ends", "images with the smallest or largest code of a latent",
            _SHARE, "Codes and images", 1, _at_ends, _SCALARS),
    Measure("explained", "variance explained", "of the pixels by the reconstructions; 1 for perfect ones",
            (-math.inf, 1.0), "Codes and images", 1, _explained),
    Measure("mse", "mean squared error", "of reconstructions, pixels from 0 to 1", _POSITIVE,
            "Codes and images", 1, lambda x: x.encoding.error, headline=True, short="MSE", decimals=None),
)

TABLES: tuple[Table, ...] = (
    Table("importance", "MF", 1, lambda x: x.dci.importance, _LABELS),
    Table("nmi", "FM", 1, lambda x: x.infomec.nmi, _LABELS),
    Table("nmi_latents", "MM", 1, lambda x: x.latent_nmi),
    Table("usage", "MK", 1, lambda x: x.usage.counts, _CODES),
    Table("perplexity", "M", 1, lambda x: x.usage.perplexity, _CODES),
    Table("codes_used", "M", 1, lambda x: x.usage.used, _CODES),
    Table("end_load", "M", 1, _end_load, _SCALARS),
)
# fmt: on


def measure(name: str) -> Measure | None:
    """The measure of this name, if there is one."""
    return next((each for each in MEASURES if each.name == name), None)


def applicable(has: frozenset[str]) -> tuple[list[Measure], list[Table]]:
    """The measures and tables of a run that has these, of `present`'s names."""
    return (
        [each for each in MEASURES if has.issuperset(each.needs)],
        [each for each in TABLES if has.issuperset(each.needs)],
    )


def headlines(scores: Mapping[str, Any]) -> list[Measure]:
    """What a table shows of runs with these scores: the headline measures; without labels, all there are."""
    shown = [each for each in MEASURES if each.name in scores]
    labelled = any("labels" in each.needs for each in shown)
    return [each for each in shown if each.headline or not labelled]
