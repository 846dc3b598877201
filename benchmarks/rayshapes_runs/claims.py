"""The paper's claims as numbers that are positive where a claim is right, and what the runs say of each.

The claims, in claim_list.py, are those of arXiv 2409.14851 in our words, written before the runs that decide
them. Those that say `later` were changed or added when the first seed of the experiment `models` was known,
and nothing of the others but `choose` and `beyond`; those of runs of 12,000 steps, when all was known but
these runs themselves.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from fqvae.figures import t_interval
from rayshapes_runs.numbers import Spread, spread
from rayshapes_runs.reading import Results

Verdict = Literal["holds", "does not hold here", "not decided by these runs"]
UNDECIDED: Verdict = "not decided by these runs"


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

    part: of the paper. contrasts: all are positive if it is right; none if no run of ours tests it. later:
    whether it was written when the first runs were known.
    """

    part: str
    text: str
    contrasts: tuple[Contrast, ...] = ()
    later: bool = False


@dataclass(frozen=True)
class Answer:
    """What the runs say of a claim.

    spreads: of each contrast; None if it has no runs. level: of the intervals that may speak against it.
    complete: whether all seeds are there.
    """

    verdict: Verdict
    spreads: tuple[Spread | None, ...]
    level: float = 0.95
    complete: bool = False


def answer(claim: Claim, found: Mapping[str, Results]) -> Answer:
    """Ask the runs.

    A claim holds if the 95 % t interval of every contrast is above 0. It does not hold if that of one of k
    contrasts is below 0, at the level 1 - .05/k, since one of many is below 0 by chance more often than one
    alone. Otherwise these runs do not decide it; likewise as long as a contrast lacks seeds of its
    experiment, or has fewer than three.
    """
    values = [contrast.values(found) for contrast in claim.contrasts]
    spreads = tuple(spread(each) if each else None for each in values)
    wanted = [max(3, found[contrast.experiment].seeds) for contrast in claim.contrasts]
    if not spreads or any(len(each) < count for each, count in zip(values, wanted, strict=True)):
        return Answer(UNDECIDED, spreads)
    level = 1 - 0.05 / len(spreads)
    verdict = UNDECIDED
    if all(above(each, 0.95) for each in spreads if each):
        verdict = "holds"
    elif any(below(each, level) for each in spreads if each):
        verdict = "does not hold here"
    return Answer(verdict, spreads, level, complete=True)


def above(found: Spread, level: float) -> bool:
    """Whether the interval of that level is above 0; of at least two values."""
    return found.mean > _half(found, level)


def below(found: Spread, level: float) -> bool:
    """Whether the interval of that level is below 0; of at least two values."""
    return found.mean < -_half(found, level)


def _half(found: Spread, level: float) -> float:
    assert found.deviation is not None and math.isfinite(found.mean)
    return t_interval(found.deviation, found.count, level)
