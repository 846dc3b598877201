"""Disentanglement, completeness and informativeness by boosted trees."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from sklearn.ensemble import GradientBoostingClassifier  # type: ignore[import-untyped]

from fqvae.metrics._arrays import Array, Floats, Ints, check_choice, check_seed, read_split, varying
from fqvae.metrics._classifiers import quietly
from fqvae.metrics._histogram import histogram_boosting, impurity_importance
from fqvae.metrics._parallel import in_processes

_CLASSIFIERS = ("boosting", "histogram")


class DCI(NamedTuple):
    """What `dci` returns.

    disentanglement, completeness, informativeness_train, informativeness_test: in [0, 1].
    importance: float64 (latents, factors), of a code for a factor; a column sums to 1, or to 0 if no tree
    found a use for any code.
    """

    disentanglement: float
    completeness: float
    informativeness_train: float
    informativeness_test: float
    importance: Floats


def dci(
    codes_train: Array,
    factors_train: Array,
    codes_test: Array,
    factors_test: Array,
    *,
    classifier: str = "boosting",
    seed: int = 0,
    jobs: int | None = None,
    progress: bool = False,
) -> DCI:
    """DCI (Eastwood and Williams, ICLR 2018), with boosted trees as in Locatello et al. (ICML 2019).

    One classifier for each factor predicts it from all codes. With R[i,j] >= 0 the importance of code i for
    factor j, rho the share of a row (or column) in the sum of R, and entropies of the normalised rows (or
    columns) after 1e-11 was added to R:

        disentanglement  sum_i rho_i (1 - H(R[i,:])), in base (number of factors): each code serves one factor
        completeness     sum_j rho_j (1 - H(R[:,j])), in base (number of codes): each factor has one code
        informativeness  the mean accuracy of the classifiers, on the training and on the test samples

    Constant factors (in the training samples) are left out of everything: they need no code, and their column
    of R is zero. Without any other factor all scores are 0. With a single other factor there is nothing to
    tell apart, disentanglement is 0; likewise completeness with a single code. Codes that no tree uses give a
    disentanglement and a completeness of 0. A value that the training samples lack is never predicted.

    Scores of different classifiers, or of different numbers of samples, cannot be compared.

    Args:
        codes_train, codes_test: (samples, latents), integers or floating-point, finite. Trees read order: of
            discrete codes give the ranks (`code_ranks`) rather than the indices.
        factors_train, factors_test: (samples, factors), integers of at least 0.
        classifier: "boosting", the default of the field: scikit-learn's `GradientBoostingClassifier` with
            its defaults, which weighs codes by their decrease of impurity. "histogram": as many trees of the
            same depth and learning rate from `HistGradientBoostingClassifier`, and the same measure of
            importance; several times as fast, with scores that differ a little.
        seed: int in [0, 2**32). The number of jobs changes nothing.
        jobs: processes that share the factors; None: as many as cores.
        progress: show a progress bar on standard error; needs tqdm.

    Raises:
        TypeError: factors that are not integers, codes that are not numbers, another type of option.
        ValueError: shapes that do not fit each other, fewer than 2 training samples or no test sample, NaN
            or infinity, a negative factor, an unknown classifier.
        ModuleNotFoundError: progress without tqdm.
    """
    check_choice("classifier", classifier, _CLASSIFIERS)
    check_seed(seed)
    codes, factors, test_codes, test_factors = read_split(
        codes_train, factors_train, codes_test, factors_test, discrete=False
    )
    varies = varying(factors)
    tasks = [
        (codes, factors[:, j], test_codes, test_factors[:, j], classifier, seed)
        for j in np.flatnonzero(varies)
    ]
    fitted = in_processes(_fit, tasks, jobs=jobs, progress=progress, title="DCI, factors")
    importance = np.zeros((codes.shape[1], factors.shape[1]))
    if not fitted:
        return DCI(0.0, 0.0, 0.0, 0.0, importance)
    importance[:, varies] = np.stack([each for each, _, _ in fitted], axis=1)
    used = importance[:, varies]
    return DCI(
        _spread_score(used),
        _spread_score(used.T),
        float(np.mean([accuracy for _, accuracy, _ in fitted])),
        float(np.mean([accuracy for _, _, accuracy in fitted])),
        importance,
    )


def _spread_score(importance: Floats) -> float:
    """sum_i rho_i (1 - H(R[i,:])): 1 if every row is used for one column; 0 for one column or nothing."""
    total, columns = importance.sum(), importance.shape[1]
    if total == 0 or columns == 1:
        return 0.0
    share = importance + 1e-11
    share /= share.sum(1, keepdims=True)
    entropy = -(share * np.log(share)).sum(1) / np.log(columns)
    return float(np.clip((importance.sum(1) / total) @ (1 - entropy), 0.0, 1.0))


def _fit(
    codes: Floats, factor: Ints, test_codes: Floats, test_factor: Ints, classifier: str, seed: int
) -> tuple[Floats, float, float]:
    """Importance of every code for a factor, accuracy on the training and on the test samples."""
    boosting = classifier == "boosting"
    model = GradientBoostingClassifier(random_state=seed) if boosting else histogram_boosting(seed)
    quietly(model, codes, factor)
    if boosting:
        with np.errstate(invalid="ignore"):
            # scikit-learn divides 0 by 0 where trees have splits that lower nothing.
            importance = np.nan_to_num(model.feature_importances_)
    else:
        importance = impurity_importance(model, codes, factor)
    train, test = (
        float(np.mean(model.predict(samples) == values))
        for samples, values in ((codes, factor), (test_codes, test_factor))
    )
    return importance, train, test
