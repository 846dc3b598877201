"""Modularity, compactness and explicitness in terms of information."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats  # type: ignore[import-untyped]

from fqvae.metrics._arrays import Array, Floats, Ints, check_count, check_seed, read_pair, varying
from fqvae.metrics._classifiers import features, logistic_regression
from fqvae.metrics._information import discrete_information, entropies, ksg_information, miller_madow
from fqvae.metrics._parallel import in_processes

_CHANCE = 1e-3  # how often independent columns may seem to depend on each other
_SMALLEST = float(np.finfo(np.float64).eps)  # of a predicted probability, as in scikit-learn's log_loss


class InfoMEC(NamedTuple):
    """What `infomec` returns.

    infom, infoc, infoe: modularity, compactness, explicitness, in [0, 1].
    infom_corrected, infoc_corrected: the first two of nmi_corrected, in [0, 1]; 0 if shuffles is 0.
    nmi: float64 (factors, latents), I(factor; code)/H(factor); 0 for a constant factor.
    nmi_corrected: the same without the part that chance explains; 0 if shuffles is 0.
    active: bool (latents,).
    """

    infom: float
    infoc: float
    infoe: float
    infom_corrected: float
    infoc_corrected: float
    nmi: Floats
    nmi_corrected: Floats
    active: NDArray[np.bool_]


def infomec(
    codes: Array,
    factors: Array,
    *,
    discrete: bool,
    neighbors: int = 10,
    iterations: int = 100,
    active_share: float = 0.05,
    shuffles: int = 20,
    seed: int = 0,
    jobs: int | None = None,
    progress: bool = False,
) -> InfoMEC:
    """InfoMEC (Hsu et al., Disentanglement via Latent Quantization, NeurIPS 2023).

    With nmi[i,j] = I(factor_i; code_j)/H(factor_i), F factors, and the A active codes j:

        infom  (mean_j max_i nmi/sum_i nmi - 1/F)/(1 - 1/F): each code knows of one factor
        infoc  (mean_i max_j nmi/sum_j nmi - 1/A)/(1 - 1/A): each factor is known to one code
        infoe  mean_i (ln C_i - H(factor_i | codes))/ln C_i: what a linear model reads off all codes

    I is the plug-in estimate for discrete codes, and Ross's estimate by nearest neighbours on standardised
    ones for continuous codes (`sklearn.feature_selection.mutual_info_classif`). A code is active if its range
    is positive (discrete), or greater than active_share of the largest range (continuous).

    H(factor_i | codes) is the mean of -ln p(factor_i) over the samples, p by multinomial logistic regression
    (lbfgs, tolerance 1e-4; no penalty, classes weighted to equal shares) fitted to the same samples, on
    one-hot or standardised codes, active or not. Without codes that regression says 1/C_i for each of the C_i
    values that occur: hence ln C_i. A term below 0, where classes of different size are predicted badly, is
    taken as 0.

    Corrected: plug-in information is too large, of independent columns too; and an estimate that is held at
    0 from below has noise that looks like concentration. So discrete codes get the estimates of Miller and
    Madow (Miller, 1955) for I and H: (values - 1)/(2 samples) is added to each entropy, with the pairs that
    occur as the values of the joint one. And of all codes an entry counts as 0 unless its I, by the estimate
    of above, exceeds what independent columns reach in 1 of 1000 cases: the rows of factors are shuffled
    against the codes, and a gamma distribution has the mean and the variance of the shuffles. A perfect code
    keeps its 1, noise gets 0. What is left of the bias still depends on the number of samples.

    Degenerate input: constant factors are left out, and F does not count them; if none is left, all is 0. A
    code (for infoc: a factor) without any information contributes 0 to the mean. infom is 0 for a single
    factor, infoc for a single active code, both without an active code: there is nothing to concentrate.
    infoe is 0 if no code varies. Factors of which every sample has a value of its own are legal: their
    information by nearest neighbours is 0.

    Args:
        codes: (samples, latents): integers of at least 0 if discrete, else finite numbers.
        factors: (samples, factors), integers of at least 0.
        discrete: whether the codes' values are names, or numbers on a line.
        neighbors: of the estimate for continuous codes. The authors of arXiv 2409.14851 take 3.
        iterations: at which the regression stops. The same authors: 500.
        active_share: in [0, 1), for continuous codes.
        shuffles: at least 10, or 0: nothing is corrected, which saves most of the time of continuous codes.
        seed: int in [0, 2**32): of the shuffles, and of noise of 1e-10 that parts equal continuous codes. The
            number of jobs changes nothing.
        jobs: processes that share the work; None: as many as cores.
        progress: show progress bars on standard error; needs tqdm.

    Raises:
        TypeError: discrete codes or factors that are not integers, codes that are not numbers, another type
            of option.
        ValueError: shapes that do not fit each other, fewer than 2 samples, NaN or infinity, a negative
            factor or discrete code, an option out of range.
        ModuleNotFoundError: progress without tqdm.
    """
    check_count("neighbors", neighbors, 1)
    check_count("iterations", iterations, 1)
    check_count("shuffles", shuffles, 0)
    if 0 < shuffles < 10:
        raise ValueError(f"shuffles must be 0 or at least 10, but was {shuffles}")
    if not 0 <= active_share < 1:
        raise ValueError(f"active_share must be at least 0 and below 1, but was {active_share}")
    check_seed(seed)
    table, labels = read_pair(codes, factors, discrete=discrete)
    varies = varying(labels)
    active = _active(table, discrete, active_share)
    shape = (labels.shape[1], table.shape[1])
    nmi, corrected = np.zeros(shape), np.zeros(shape)
    labels = labels[:, varies]
    if not varies.any():
        return InfoMEC(0.0, 0.0, 0.0, 0.0, 0.0, nmi, corrected, active)

    generator = np.random.default_rng(seed)
    orders = [np.arange(len(table)), *(generator.permutation(len(table)) for _ in range(shuffles))]
    tasks = [(table, labels[order], discrete, neighbors, seed) for order in orders]
    # Counting is faster than starting processes.
    estimates = in_processes(
        _information,
        tasks,
        jobs=1 if discrete else jobs,
        progress=progress,
        title="InfoM and InfoC, shuffles",
    )
    nmi[varies] = estimates[0] / entropies(labels)[:, None]
    if shuffles:
        better = _miller_madow(table, labels) if discrete else nmi[varies]
        corrected[varies] = np.where(_beyond_chance(estimates[0], np.stack(estimates[1:])), better, 0.0)

    explained = [0.0]
    if varying(table).any():
        inputs = features(table, discrete=discrete)
        explained = in_processes(
            _explained,
            [(inputs, factor, iterations) for factor in labels.T],
            jobs=jobs,
            progress=progress,
            title="InfoE, factors",
        )
    scores = [
        _concentration(part)
        for each in (nmi, corrected)
        for part in (each[varies][:, active].T, each[varies][:, active])
    ]
    return InfoMEC(
        scores[0], scores[1], float(np.mean(explained)), scores[2], scores[3], nmi, corrected, active
    )


def _active(codes: NDArray[Any], discrete: bool, share: float) -> NDArray[np.bool_]:
    if discrete:
        return varying(codes)
    span = codes.max(0) - codes.min(0)
    active: NDArray[np.bool_] = span > share * span.max()
    return active


def _information(codes: NDArray[Any], factors: Ints, discrete: bool, neighbors: int, seed: int) -> Floats:
    """(factors, latents)."""
    if discrete:
        return discrete_information(factors, codes)
    return ksg_information(factors, codes, neighbors, seed)


def _miller_madow(codes: Ints, factors: Ints) -> Floats:
    """I(factor; code)/H(factor), (factors, latents); no factor is constant."""
    entropy = np.array([miller_madow(factor) for factor in factors.T])
    nmi: Floats = discrete_information(factors, codes, miller_madow) / entropy[:, None]
    return nmi


def _beyond_chance(information: Floats, shuffled: Floats) -> NDArray[np.bool_]:
    """Whether I is more than chance explains, (F, L). information: (F, L). shuffled: (shuffles, F, L)."""
    mean, variance = shuffled.mean(0), shuffled.var(0, ddof=1)
    limit = mean.copy()
    random = (mean > 0) & (variance > 0)
    limit[random] = stats.gamma.isf(
        _CHANCE, mean[random] ** 2 / variance[random], scale=variance[random] / mean[random]
    )
    # The margin is for rounding, where all shuffles give the same: as many values as samples.
    beyond: NDArray[np.bool_] = information > limit + 1e-9
    return beyond


def _concentration(nmi: Floats) -> float:
    """The mean over rows of (max/sum - 1/n)/(1 - 1/n), n columns; a row of zeros counts as 0."""
    rows, columns = nmi.shape
    if rows == 0 or columns < 2:
        return 0.0
    total = nmi.sum(1)
    share = np.full(rows, 1 / columns)
    np.divide(nmi.max(1), total, out=share, where=total > 0)
    return float(np.clip((share.mean() - 1 / columns) / (1 - 1 / columns), 0.0, 1.0))


def _explained(inputs: Any, factor: Ints, iterations: int) -> float:
    """(ln C - H(factor | codes))/ln C, or 0 if that is negative."""
    values, labels = np.unique(factor, return_inverse=True)
    model = logistic_regression(inputs, labels, penalised=False, balanced=True, iterations=iterations)
    predicted = model.predict_proba(inputs)[np.arange(len(labels)), labels]
    cost = -np.log(np.maximum(predicted, _SMALLEST)).mean()
    return max(0.0, float(1 - cost / math.log(len(values))))
