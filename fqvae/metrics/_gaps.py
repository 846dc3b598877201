"""Scores of how far the best code for a factor stands from the second best."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from sklearn.svm import LinearSVC  # type: ignore[import-untyped]
from sklearn.tree import DecisionTreeClassifier  # type: ignore[import-untyped]

from fqvae.metrics._arrays import (
    Array,
    Floats,
    Ints,
    binned,
    check_choice,
    check_count,
    check_seed,
    read_pair,
    read_split,
    standardised,
    varying,
)
from fqvae.metrics._classifiers import quietly
from fqvae.metrics._information import discrete_information, entropies

_CLASSIFIERS = ("svm", "tree")


class Gap(NamedTuple):
    """What `mig` and `sap` return.

    score: the mean of the gaps of all factors that vary, in [0, 1].
    gaps: float64 (factors,); 0 for a constant factor.
    matrix: float64 (factors, latents), what the gaps are between; 0 for a constant factor.
    """

    score: float
    gaps: Floats
    matrix: Floats


def mig(codes: Array, factors: Array, *, discrete: bool, bins: int = 20) -> Gap:
    """Mutual information gap (Chen et al., Isolating Sources of Disentanglement, NeurIPS 2018).

    The mean over factors of (I1 - I2)/H(factor), I1 and I2 the largest and the second largest mutual
    information of the factor with a single code. Plug-in estimates, of continuous codes cut into equal
    intervals between their extremes, as in Locatello et al. (ICML 2019).

    Range [0, 1]. Constant factors are left out; if none is left the score is 0. With a single code I2 is 0.
    Constant codes have no information.

    Args:
        codes: (samples, latents): integers of at least 0 if discrete, else finite numbers.
        factors: (samples, factors), integers of at least 0.
        discrete: whether codes are taken as they are, or cut into intervals.
        bins: the number of intervals.

    Raises:
        TypeError: discrete codes or factors that are not integers, codes that are not numbers, another type
            of option.
        ValueError: shapes that do not fit each other, fewer than 2 samples, NaN or infinity, a negative
            factor or discrete code, fewer than 2 bins.
    """
    check_count("bins", bins, 2)
    table, labels = read_pair(codes, factors, discrete=discrete)
    varies = varying(labels)
    matrix = np.zeros((labels.shape[1], table.shape[1]))
    information = discrete_information(labels[:, varies], table if discrete else binned(table, bins))
    matrix[varies] = information / entropies(labels[:, varies])[:, None]
    return _gap(matrix, varies)


def sap(
    codes_train: Array,
    factors_train: Array,
    codes_test: Array,
    factors_test: Array,
    *,
    classifier: str = "svm",
    seed: int = 0,
) -> Gap:
    """Separated attribute predictability (Kumar et al., ICLR 2018, the paper on DIP-VAE).

    The mean over factors of the difference between the two largest S[i,j], the accuracy on the test samples
    with which factor i is predicted from code j alone.

    Range [0, 1]. Constant factors (in the training samples) are left out; if none is left the score is 0.
    Where a code is constant in the training samples its accuracy is that of the most frequent value (svm) or
    1/(number of values) (tree). With a single code the second accuracy is 0. A code that tells nothing still
    has the accuracy of guessing: a perfect representation of uniform factors with C values has 1 - 1/C.

    Args:
        codes_train, codes_test: (samples, latents), integers or floating-point, finite. Their order
            counts: of discrete codes give the ranks (`code_ranks`).
        factors_train, factors_test: (samples, factors), integers of at least 0.
        classifier: "svm", which the field reports (Locatello et al., ICML 2019): a linear support vector
            machine, C = 0.01, classes weighted to equal shares, one against the rest; here on standardised
            codes. It sees only the first and the last of a factor's values on a line. "tree", the thresholds
            of the paper: a decision tree with a leaf for each value, classes weighted to equal shares, and
            balanced accuracy (the mean over the values that occur in the test samples).
        seed: int in [0, 2**32), of the classifiers.

    Raises:
        TypeError, ValueError: as `dci`.
    """
    check_choice("classifier", classifier, _CLASSIFIERS)
    check_seed(seed)
    codes, factors, tests, labels = read_split(
        codes_train, factors_train, codes_test, factors_test, discrete=False
    )
    varies = varying(factors)
    matrix = np.zeros((factors.shape[1], codes.shape[1]))
    for i in np.flatnonzero(varies):
        for j in range(codes.shape[1]):
            column, test = codes[:, [j]], tests[:, [j]]
            if varying(column).any():
                column, test = standardised(column), standardised(column, test)
            matrix[i, j] = _accuracy(column, factors[:, i], test, labels[:, i], classifier, seed)
    return _gap(matrix, varies)


def _gap(matrix: Floats, varies: Any) -> Gap:
    first = np.zeros(len(matrix))
    if varies.any():
        ordered = np.sort(np.pad(matrix, ((0, 0), (1, 0))), axis=1)
        first = ordered[:, -1] - ordered[:, -2]
    return Gap(float(first[varies].mean()) if varies.any() else 0.0, first, matrix)


def _accuracy(
    codes: Floats, factor: Ints, test_codes: Floats, test_factor: Ints, classifier: str, seed: int
) -> float:
    """Of predicting a factor (samples,) from one code (samples, 1)."""
    values, labels, counts = np.unique(factor, return_inverse=True, return_counts=True)
    constant = not varying(codes).any()
    if classifier == "svm":
        if constant:
            return float(np.mean(test_factor == values[counts.argmax()]))
        model = LinearSVC(C=0.01, class_weight="balanced", dual=False, random_state=seed)
        predicted = values[quietly(model, codes, labels).predict(test_codes)]
        return float(np.mean(predicted == test_factor))
    if constant:
        return 1 / len(values)
    model = DecisionTreeClassifier(max_leaf_nodes=len(values), class_weight="balanced", random_state=seed)
    right = values[quietly(model, codes, labels).predict(test_codes)] == test_factor
    return float(np.mean([right[test_factor == value].mean() for value in np.unique(test_factor)]))
