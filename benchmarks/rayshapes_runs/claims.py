"""The paper's claims as numbers that are positive where a claim is right, and what the runs say of each.

Written before the runs that decide them. The claims are those of arXiv 2409.14851, in our words.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from fqvae.figures import t_interval
from rayshapes_runs.numbers import Spread, spread
from rayshapes_runs.reading import Results

Verdict = Literal["holds", "does not hold here", "not decided by these runs"]
UNDECIDED: Verdict = "not decided by these runs"
MARGIN = 0.05  # of D and InfoM: what "no worse" leaves room for
OTHERS = ("ae", "bioae", "vae", "factorvae", "qlae", "dvae", "factordvae", "qvae")  # of the paper


@dataclass(frozen=True)
class Contrast:
    """A weighted sum of a measure over runs of one experiment, seed by seed, which a claim says is positive.

    margin: is added.
    """

    experiment: str
    measure: str
    weights: Mapping[str, float]
    margin: float = 0.0

    def values(self, found: Mapping[str, Results]) -> list[float]:
        """One for each seed that all the runs have."""
        runs = [found[self.experiment].values(name, self.measure) for name in self.weights]
        seeds = set.intersection(*map(set, runs))
        factors = self.weights.values()
        return [
            self.margin + sum(factor * run[seed] for factor, run in zip(factors, runs, strict=True))
            for seed in sorted(seeds)
        ]


@dataclass(frozen=True)
class Claim:
    """What the paper says.

    part: of the paper. contrasts: all are positive if it is right; none if no run of ours tests it.
    """

    part: str
    text: str
    contrasts: tuple[Contrast, ...] = ()


@dataclass(frozen=True)
class Answer:
    """What the runs say of a claim.

    spreads: of each contrast; None if it has no runs.
    """

    verdict: Verdict
    spreads: tuple[Spread | None, ...]


def answer(claim: Claim, found: Mapping[str, Results]) -> Answer:
    """Ask the runs.

    A claim holds if the 95 % t interval of every contrast is above 0. It does not hold if that of one of k
    contrasts is below 0, at the level 1 - .05/k, since one of many is below 0 by chance more often than one
    alone. Otherwise these runs do not decide it; likewise as long as a contrast has fewer than three seeds.
    """
    values = [contrast.values(found) for contrast in claim.contrasts]
    spreads = tuple(spread(each) if each else None for each in values)
    if not spreads or any(each is None or each.count < 3 for each in spreads):
        return Answer(UNDECIDED, spreads)
    if all(each.mean > _half(each, 0.95) for each in spreads if each):
        return Answer("holds", spreads)
    level = 1 - 0.05 / len(spreads)
    if any(each.mean < -_half(each, level) for each in spreads if each):
        return Answer("does not hold here", spreads)
    return Answer(UNDECIDED, spreads)


def _half(found: Spread, level: float) -> float:
    assert found.deviation is not None and math.isfinite(found.mean)
    return t_interval(found.deviation, found.count, level)


def _ahead(
    experiment: str, measures: Sequence[str], one: str, others: Sequence[str], margin: float = 0.0
) -> tuple[Contrast, ...]:
    """`one` has more of the measures than each of the others."""
    return tuple(
        Contrast(experiment, measure, {one: 1.0, other: -1.0}, margin)
        for measure in measures
        for other in others
    )


def _behind(
    experiment: str, measures: Sequence[str], one: str, others: Sequence[str]
) -> tuple[Contrast, ...]:
    """`one` has less of the measures than each of the others."""
    return tuple(
        Contrast(experiment, measure, {other: 1.0, one: -1.0}) for measure in measures for other in others
    )


_D, _M = "disentanglement", "infom"
_RESULTS, _FIRST, _SECOND, _THIRD = (
    "Key results",
    "Scalars and one codebook",
    "Total correlation",
    "Gumbel-Softmax",
)
_TRADE, _SIGNS = "Trade-offs", "Signs of failure"
_VECTORS = ("vectors of 4", "vectors of 16")
# The gamma of the larger half of FactorQVAE's grid, which signs of too much and too little stand around.
_MIDDLE = "gamma 2e-3"

CLAIMS = (
    *(
        Claim(
            _RESULTS,
            f"FactorQVAE disentangles better than each of the eight other models, by {what}",
            _ahead("models", (measure,), "factorqvae", OTHERS),
        )
        for measure, what in (
            (_D, "D of DCI"),
            ("completeness", "C of DCI"),
            (_M, "InfoM"),
            ("infoc_corrected", "InfoC, corrected"),
            ("infoe", "InfoE"),
        )
    ),
    Claim(
        _RESULTS,
        "Its reconstruction stays close to that of the best: here, its error is at most 1.5 times the AE's",
        (Contrast("models", "mse", {"ae": 1.5, "factorqvae": -1.0}),),
    ),
    Claim(
        _RESULTS,
        "Codes and independence together disentangle better than codes alone (QVAE) or independence alone "
        "(FactorVAE), by D and InfoM",
        _ahead("models", (_D, _M), "factorqvae", ("qvae", "factorvae")),
    ),
    Claim(_RESULTS, "All this on Shapes3D, Isaac3D and MPI3D-Complex"),
    Claim(
        _FIRST,
        "One codebook of scalars disentangles better than one of vectors, by D and InfoM",
        _ahead("codebooks", (_D, _M), "shared", _VECTORS),
    ),
    Claim(
        _FIRST,
        "It leads to one latent for each factor: C and corrected InfoC are larger than with vectors",
        _ahead("codebooks", ("completeness", "infoc_corrected"), "shared", _VECTORS),
    ),
    Claim(
        _FIRST,
        "One codebook for all latents is better than one for each, by D and InfoM",
        _ahead("codebooks", (_D, _M), "shared", ("per latent",)),
    ),
    Claim(
        _FIRST,
        "It breaks where factors are strongly correlated: D of FactorQVAE is less at strength .9 than at 0",
        _behind("correlated", (_D,), "factorqvae 0.9", ("factorqvae 0",)),
    ),
    *(
        Claim(
            _SECOND,
            f"Total correlation disentangles, by {what}: FactorQVAE against QVAE, FactorVAE against VAE, "
            "FactorDVAE against dVAE",
            (
                *_ahead("models", (measure,), "factorqvae", ("qvae",)),
                *_ahead("models", (measure,), "factorvae", ("vae",)),
                *_ahead("models", (measure,), "factordvae", ("dvae",)),
            ),
        )
        for measure, what in ((_D, "D"), (_M, "InfoM"))
    ),
    Claim(
        _SECOND,
        "It makes the latents independent: their total correlation is smaller in FactorQVAE than in QVAE",
        _behind("models", ("total_correlation",), "factorqvae", ("qvae",)),
    ),
    Claim(
        _SECOND,
        "Where factors depend on each other it harms: what it adds to D is less at strength .9 than at 0",
        (
            Contrast(
                "correlated",
                _D,
                {"factorqvae 0": 1.0, "qvae 0": -1.0, "factorqvae 0.9": -1.0, "qvae 0.9": 1.0},
            ),
        ),
    ),
    Claim(
        _THIRD,
        "Drawn codes with Gumbel-Softmax are better than the nearest code, by D and InfoM",
        _ahead("estimators", (_D, _M), "gumbel soft", ("nearest",)),
    ),
    Claim(
        _THIRD,
        f"Gumbel-Softmax is enough: no worse ({MARGIN:g}) than straight-through and ReinMax, by D and InfoM",
        _ahead("estimators", (_D, _M), "gumbel soft", ("straight-through", "reinmax"), MARGIN),
    ),
    Claim(_THIRD, "It breaks when the temperature falls too fast or too slowly"),
    Claim(
        _TRADE,
        "One codebook for all needs care in optimising: D is smaller at the networks' own learning rate",
        _ahead("codebook", (_D,), "K 64", ("rate 2e-3",)),
    ),
    Claim(
        _TRADE,
        "Scalars are more independent than vectors: the total correlation of the codes is smaller",
        _behind("codebooks", ("total_correlation",), "shared", _VECTORS),
    ),
    Claim(
        _TRADE,
        "Scalars hold less: the reconstruction error is larger than with vectors",
        _ahead("codebooks", ("mse",), "shared", _VECTORS),
    ),
    Claim(
        _TRADE,
        "Drawing codes adds noise: the reconstruction error is larger than with the nearest code",
        _ahead("estimators", ("mse",), "gumbel soft", ("nearest",)),
    ),
    Claim(
        _SIGNS,
        f"Too much total correlation: a larger error with D no worse ({MARGIN:g}), gamma 8e-3 against 2e-3",
        (
            *_ahead("gamma", ("mse",), "gamma 8e-3", (_MIDDLE,)),
            *_ahead("gamma", (_D,), "gamma 8e-3", (_MIDDLE,), MARGIN),
        ),
    ),
    Claim(
        _SIGNS,
        "Too little: a smaller error with a smaller D, gamma 0 against 2e-3",
        _behind("gamma", ("mse", _D), "gamma 0", (_MIDDLE,)),
    ),
    Claim(
        _SIGNS,
        "Too few codes: a larger error with 16 codes than with 64",
        _ahead("codebook", ("mse",), "K 16", ("K 64",)),
    ),
    Claim(_SIGNS, "Wrong temperatures, or an ill-balanced discriminator, make training unstable"),
)
