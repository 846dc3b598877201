"""Modularity and explicitness (Ridgeway and Mozer, Learning Deep Disentangled Embeddings, NeurIPS 2018)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from sklearn.metrics import roc_auc_score  # type: ignore[import-untyped]

from fqvae.metrics._arrays import (
    Array,
    Floats,
    Ints,
    binned,
    check_count,
    labels_of,
    read_pair,
    read_split,
    varying,
)
from fqvae.metrics._classifiers import TrainTest, features, logistic_regression
from fqvae.metrics._information import discrete_information

_GUESSING = 0.5


class Modularity(NamedTuple):
    """What `modularity` returns. score: the mean of codes, float64 (latents,); all in [0, 1]."""

    score: float
    codes: Floats


def modularity(codes: Array, factors: Array, *, discrete: bool, bins: int = 20) -> Modularity:
    """Modularity of Ridgeway and Mozer (NeurIPS 2018).

    The mean over all codes i of 1 - sum_{f != g} I[i,f]**2 / (I[i,g]**2 (F - 1)), with F factors, I the
    mutual information in nats and g the factor for which I[i,g] is largest. Plug-in estimates; continuous
    codes are cut into equal intervals between their extremes, as in Locatello et al. (ICML 2019).

    Range [0, 1]. A code without information, a constant one among them, has 0. Constant factors are left out,
    and F does not count them; with fewer than two others the score is 0. Estimates are positive for codes
    that know nothing, and similar for all factors with similar numbers of values: such codes have a low
    score.

    Args, Raises: as `mig`.
    """
    check_count("bins", bins, 2)
    table, labels = read_pair(codes, factors, discrete=discrete)
    labels = labels[:, varying(labels)]
    each = np.zeros(table.shape[1])
    if labels.shape[1] > 1:
        squares = discrete_information(labels, table if discrete else binned(table, bins)).T ** 2
        largest = squares.max(1)
        rest = squares.sum(1) - largest
        known = largest > 0
        each[known] = 1 - rest[known] / (largest[known] * (labels.shape[1] - 1))
    return Modularity(float(each.mean()), each)


def explicitness(
    codes_train: Array,
    factors_train: Array,
    codes_test: Array,
    factors_test: Array,
    *,
    discrete: bool,
    iterations: int = 100,
) -> TrainTest:
    """Explicitness of Ridgeway and Mozer (NeurIPS 2018).

    A logistic regression (scikit-learn's defaults) predicts each factor from all codes: one-hot or
    standardised. The score is the mean over factors of the mean over their values of the area under the ROC
    curve of that value against the rest. It is deterministic.

    Range [0, 1]; guessing has 0.5, a score that is not rescaled. Constant factors (in the training samples)
    are left out. A value that occurs in no sample, or in all, has no curve and is left out; one that is
    missing only from the training samples has 0.5. If no factor, no value or no varying code is left, 0.5.

    Args:
        codes_train, codes_test: (samples, latents): integers of at least 0 if discrete, else finite numbers.
        factors_train, factors_test: (samples, factors), integers of at least 0.
        discrete: whether the codes' values are names, or numbers on a line.
        iterations: at which the regression stops.

    Raises:
        TypeError: discrete codes or factors that are not integers, codes that are not numbers, another type
            of option.
        ValueError: shapes that do not fit each other, fewer than 2 training samples or no test sample, NaN
            or infinity, a negative factor or discrete code, fewer than one iteration.
    """
    check_count("iterations", iterations, 1)
    codes, factors, tests, labels = read_split(
        codes_train, factors_train, codes_test, factors_test, discrete=discrete
    )
    if not varying(codes).any():
        return TrainTest(_GUESSING, _GUESSING)
    inputs = features(codes, discrete=discrete)
    test_inputs = features(codes, tests, discrete=discrete)
    areas: tuple[list[float], list[float]] = ([], [])
    for i in np.flatnonzero(varying(factors)):
        values = np.unique(factors[:, i])
        model = logistic_regression(
            inputs, labels_of(factors[:, i]), penalised=True, balanced=False, iterations=iterations
        )
        for part, table, factor in zip(
            areas, (inputs, test_inputs), (factors[:, i], labels[:, i]), strict=True
        ):
            part.extend(_mean_area(model.predict_proba(table), values, factor))
    train, test = (float(np.mean(part)) if part else _GUESSING for part in areas)
    return TrainTest(train, test)


def _mean_area(probability: Floats, values: Ints, factor: Ints) -> list[float]:
    """The mean area over the values of a factor (samples,) in a list; an empty one if no value has a curve.

    probability: (samples, values).
    """
    occurring = np.unique(factor)
    if len(occurring) < 2:
        return []
    columns = {value: column for column, value in enumerate(values)}
    known = [value for value in occurring if value in columns]
    areas = [float(roc_auc_score(factor == value, probability[:, columns[value]])) for value in known]
    return [float(np.mean(areas + [_GUESSING] * (len(occurring) - len(known))))]
