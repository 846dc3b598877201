"""Boosted trees on histograms, and the importances that scikit-learn does not compute for them."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier  # type: ignore[import-untyped]

from fqvae.metrics._arrays import Floats, Ints, labels_of

_ROUNDING = 1e-12  # of a decrease, for each sample


def histogram_boosting(seed: int) -> Any:
    """A `HistGradientBoostingClassifier` with the trees of `GradientBoostingClassifier`'s defaults."""
    return HistGradientBoostingClassifier(
        max_iter=100,
        learning_rate=0.1,
        max_depth=3,
        max_leaf_nodes=None,
        min_samples_leaf=1,
        early_stopping=False,
        random_state=seed,
    )


def impurity_importance(model: Any, codes: Floats, factor: Ints) -> Floats:
    """The importance that `GradientBoostingClassifier.feature_importances_` holds, for trees on histograms.

    A split of n samples into l and r lowers the squared error of the residuals (indicator of the class minus
    predicted probability) by S_l**2/l + S_r**2/r - S_n**2/n, S their sums. The importance of a code is its
    share in the decreases of all splits. The gains that the trees record would be another measure: Newton's,
    divided by p(1 - p), which inflates the late splits of samples that are already predicted with certainty.

    Args:
        model: fitted to these codes (samples, latents) and this factor (samples,).

    Returns:
        (latents,); its sum is 1, or 0 if no split lowers the error by more than rounding.
    """
    total = np.zeros(codes.shape[1])
    labels = labels_of(factor)
    target = np.eye(labels.max() + 1)[labels]
    probability = np.broadcast_to(target.mean(0), target.shape)
    stages = model.staged_predict_proba(codes)
    for trees, following in zip(model._predictors, stages, strict=True):
        residuals = target - probability
        # Of two classes there is one tree: the residuals of the two differ in sign only, which squares out.
        for label, tree in enumerate(trees):
            _add_decreases(total, tree.nodes, codes, residuals[:, label])
        probability = following
    found = total.sum() > _ROUNDING * len(codes)
    return total / total.sum() if found else np.zeros_like(total)


def _add_decreases(total: Floats, nodes: Any, codes: Floats, residual: Floats) -> None:
    """Add the decreases of a tree's splits to those of the codes, (latents,)."""
    leaf = np.zeros(len(codes), dtype=np.intp)
    while (inner := np.flatnonzero(nodes["is_leaf"][leaf] == 0)).size:
        at = nodes[leaf[inner]]
        left = codes[inner, at["feature_idx"]] <= at["num_threshold"]
        leaf[inner] = np.where(left, at["left"], at["right"])
    sums = np.bincount(leaf, residual, len(nodes))
    counts = np.bincount(leaf, minlength=len(nodes)).astype(np.float64)
    parents = np.flatnonzero(nodes["is_leaf"] == 0)
    for parent in parents[np.argsort(nodes["depth"][parents])[::-1]]:
        left, right = nodes["left"][parent], nodes["right"][parent]
        sums[parent], counts[parent] = sums[left] + sums[right], counts[left] + counts[right]
        decrease = sums[left] ** 2 / counts[left] + sums[right] ** 2 / counts[right]
        total[nodes["feature_idx"][parent]] += decrease - sums[parent] ** 2 / counts[parent]
