"""Entropy and mutual information of columns, in nats."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_selection import mutual_info_classif  # type: ignore[import-untyped]

from fqvae.metrics._arrays import Floats, Ints, labels_of, standardised, varying

_ROUNDING = 1e-12  # what three entropies may leave of an information of zero


def entropy(column: Ints) -> float:
    """Plug-in entropy of a column (samples,): that of the frequencies of its values."""
    counts = np.unique(column, return_counts=True)[1]
    return entropy_of_counts(counts)


def entropy_of_counts(counts: NDArray[Any]) -> float:
    """-sum p ln p with p = counts / their sum; 0 for no counts at all."""
    counts = counts[counts > 0]
    if len(counts) < 2:
        return 0.0
    share = counts / counts.sum()
    return float(-(share * np.log(share)).sum())


def miller_madow(column: Ints) -> float:
    """Entropy after Miller (1955): the plug-in estimate plus (values that occur - 1)/(2 samples)."""
    return entropy(column) + (len(np.unique(column)) - 1) / (2 * len(column))


def entropies(table: Ints) -> Floats:
    """Of every column, (columns,)."""
    return np.array([entropy(column) for column in table.T], dtype=np.float64)


def discrete_information(first: Ints, second: Ints, measure: Callable[[Ints], float] = entropy) -> Floats:
    """I(a; b) = H(a) + H(b) - H(a, b) of every column a of first and b of second, H by the measure given.

    The expectation of the plug-in estimate is not 0 for independent columns, but about (A - 1)(B - 1)/(2
    samples), with A and B values.

    Returns:
        (columns of first, columns of second), at least 0; exactly 0 if a column is constant.
    """
    rows, columns = ([labels_of(column) for column in table.T] for table in (first, second))
    left, right = ([measure(column) for column in table] for table in (rows, columns))
    result = np.zeros((len(rows), len(columns)))
    for i, a in enumerate(rows):
        for j, b in enumerate(columns):
            result[i, j] = left[i] + right[j] - measure(a * (b.max() + 1) + b)
    result[result < _ROUNDING] = 0.0
    return result


def chance_share(values: NDArray[Any], codes: NDArray[Any], samples: int) -> Floats:
    """The share of a factor that independent codes seem to carry: (A - 1)(B - 1)/(2 samples ln B).

    That is the expectation of the plug-in estimate of information over ln B, the entropy of equally frequent
    values, to first order in 1/samples; where codes are many and samples few it is too large.

    values: (F,), B, the number of each factor's values. codes: (M,), A, of each latent's codes in use.

    Returns:
        (F, M), 0 for a factor of one value.
    """
    pairs = np.outer(values - 1, np.maximum(codes - 1, 0))
    entropy = np.log(np.maximum(values, 1))[:, None]
    shares: Floats = np.divide(pairs, 2 * samples * entropy, out=np.zeros(pairs.shape), where=entropy > 0)
    return shares


def ksg_information(factors: Ints, codes: Floats, neighbors: int, seed: int) -> Floats:
    """I(factor; code) by nearest neighbours, for discrete factors and continuous codes.

    scikit-learn's `mutual_info_classif`: Ross (PLoS ONE 2014), the estimator of Kraskov, Stögbauer and
    Grassberger (2004) for a discrete and a continuous variable. With N samples, of which n share the factor's
    value, and m codes no farther than the k-th neighbour among those n: psi(N) + psi(k) - <psi(n)> -
    <psi(m)>, or 0 if that is negative. A value that occurs once has no neighbour: its sample is left out. The
    seed draws the noise of relative size 1e-10 that parts equal codes.

    Returns:
        (factors, codes), at least 0; exactly 0 for a constant code or factor, or if no value occurs twice.
    """
    result = np.zeros((factors.shape[1], codes.shape[1]))
    varies = varying(codes)
    scaled = standardised(codes)
    if not varies.any():
        return result
    for i, factor in enumerate(factors.T):
        repeated = np.unique(factor, return_counts=True)[1] > 1
        if len(repeated) < 2 or not repeated.any():
            continue
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)
            result[i, varies] = mutual_info_classif(
                scaled, factor, discrete_features=False, n_neighbors=neighbors, random_state=seed
            )
    return result
