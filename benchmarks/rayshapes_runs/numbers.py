"""Means, paired differences and rank correlations of measures over seeds and runs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fqvae.figures import t_interval

NONE = "\u2013"  # of a table's cell


@dataclass(frozen=True)
class Spread:
    """Numbers in a few words. half: of the 95 % t interval of the mean. Both None for a single one."""

    mean: float
    deviation: float | None
    half: float | None
    count: int

    @property
    def decided(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.half is not None and abs(self.mean) > self.half


def spread(values: Sequence[float]) -> Spread:
    """Mean, sample standard deviation (n - 1) and interval; at least one value."""
    if len(values) < 2:
        return Spread(values[0], None, None, 1)
    deviation = statistics.stdev(values)
    return Spread(statistics.fmean(values), deviation, t_interval(deviation, len(values)), len(values))


def paired(ones: Mapping[int, float], others: Mapping[int, float]) -> Spread | None:
    """Of the differences one - other by seed, over the seeds that both have; None if there are none."""
    differences = [ones[seed] - others[seed] for seed in ones if seed in others]
    return spread(differences) if differences else None


def spearman(ones: Sequence[float], others: Sequence[float]) -> float | None:
    """The correlation of ranks, equal values with their mean rank; None if there is none to tell."""
    if len(ones) < 3 or len(set(ones)) < 2 or len(set(others)) < 2:
        return None
    return statistics.correlation(_ranks(ones), _ranks(others))


def _ranks(values: Sequence[float]) -> list[float]:
    """From 1; of equal values the mean of theirs."""
    ordered = sorted(values)
    first = {value: place for place, value in reversed(list(enumerate(ordered, 1)))}
    last = {value: place for place, value in enumerate(ordered, 1)}
    return [(first[value] + last[value]) / 2 for value in values]


def figures(value: float, decimals: int | None) -> str:
    """A measure as tables show it, .5 for 0.5: so many decimals, or, for None, three digits."""
    if not math.isfinite(value):
        return NONE
    text = f"{value:.3g}" if decimals is None else f"{value:.{decimals}f}"
    return text.replace("0.", ".", 1) if text.lstrip("-").startswith("0.") else text
