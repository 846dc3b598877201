"""Classifiers from scikit-learn: what they read of the codes, and how they are fitted."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning  # type: ignore[import-untyped]
from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]
from sklearn.preprocessing import OneHotEncoder  # type: ignore[import-untyped]

from fqvae.metrics._arrays import Ints, standardised, varying


class TrainTest(NamedTuple):
    """A classifier's score on the samples that it was fitted to, and on others."""

    train: float
    test: float


def features(codes: NDArray[Any], other: NDArray[Any] | None = None, *, discrete: bool) -> Any:
    """What a linear model reads of the codes that vary: one-hot (sparse) or standardised columns.

    Args:
        codes: (samples, latents), of which at least one varies.
        other: (more samples, latents), scaled as codes are; None: codes themselves. A discrete code that
            codes lack is all zeros.
    """
    varies = varying(codes)
    if discrete:
        encoder = OneHotEncoder(handle_unknown="ignore").fit(codes[:, varies])
        return encoder.transform((codes if other is None else other)[:, varies])
    return standardised(codes, other)


def logistic_regression(
    table: Any, labels: Ints, *, penalised: bool, balanced: bool, iterations: int = 100
) -> Any:
    """A fitted multinomial `LogisticRegression` (lbfgs, tolerance 1e-4), stopped after so many iterations.

    Args:
        table: (samples, features), dense or sparse.
        labels: (samples,), at least two values.
        penalised: scikit-learn's default penalty, or none.
        balanced: every class has the same weight in the loss, whatever its size.
    """
    model = LogisticRegression(
        C=1.0 if penalised else np.inf,
        class_weight="balanced" if balanced else None,
        tol=1e-4,
        max_iter=iterations,
    )
    return quietly(model, table, labels)


def quietly(model: Any, table: Any, labels: Ints) -> Any:
    """The model, fitted without warnings of limits that are part of a metric's definition."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)
        return model.fit(table, labels)
