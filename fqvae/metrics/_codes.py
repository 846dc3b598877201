"""What codes say about themselves: ranks, use, dependence among latents."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from torch import Tensor

from fqvae.metrics._arrays import (
    Array,
    Floats,
    Ints,
    binned,
    check_count,
    read_codes,
    standardised,
)
from fqvae.metrics._information import discrete_information, entropies, entropy_of_counts


class CodeUsage(NamedTuple):
    """What `code_usage` returns.

    counts: int64 (latents, codes), how often each code occurs.
    used: int64 (latents,), how many codes occur.
    perplexity: float64 (latents,), the effective number of codes, in [1, used].
    """

    counts: Ints
    used: Ints
    perplexity: Floats


def code_ranks(indices: Array, codebook: Array) -> Ints:
    """The rank of each index's code among the codebook's values: 0 is the smallest.

    An index by itself has no order, while trees and other metrics read order. Equal values share a rank, so
    that ranks run from 0 to the number of different values less one.

    Args:
        indices: (samples, latents), integers in [0, K).
        codebook: (K,), one for all latents, or (latents, K); finite.

    Returns:
        int64 (samples, latents).

    Raises:
        TypeError: indices that are not integers, a codebook that is not numbers.
        ValueError: shapes that do not fit, no sample, an index out of range, NaN or infinity.
    """
    numbers = read_codes("indices", indices, discrete=True, samples=1)
    codebook = codebook if isinstance(codebook, Tensor) else np.asarray(codebook)
    shared = codebook.ndim == 1
    if codebook.ndim not in (1, 2):
        raise ValueError(f"codebook must be of shape (K,) or (latents, K), but was {tuple(codebook.shape)}")
    values = read_codes("codebook", codebook[None] if shared else codebook, discrete=False, samples=1)
    if not shared and len(values) != numbers.shape[1]:
        raise ValueError(
            f"codebook must be of shape (K,) or ({numbers.shape[1]}, K), but was {tuple(codebook.shape)}"
        )
    _check_range(numbers, values.shape[1])
    ranks = np.stack([np.unique(row, return_inverse=True)[1].reshape(-1) for row in values])
    ranks = np.broadcast_to(ranks, (numbers.shape[1], values.shape[1])).astype(np.int64)
    return np.take_along_axis(ranks.T, numbers, axis=0)


def code_usage(indices: Array, codebook_size: int) -> CodeUsage:
    """How often each latent uses each code, and the perplexity exp(H) of that distribution, in [1, K].

    A latent that uses one code has perplexity 1, one that uses K codes equally often has K.

    Args:
        indices: (samples, latents), integers in [0, codebook_size).
        codebook_size: K, at least 1.

    Raises:
        TypeError: indices that are not integers, codebook_size that is no int.
        ValueError: another shape, no sample, an index out of range, codebook_size below 1.
    """
    check_count("codebook_size", codebook_size, 1)
    numbers = read_codes("indices", indices, discrete=True, samples=1)
    _check_range(numbers, codebook_size)
    counts = np.stack([np.bincount(column, minlength=codebook_size) for column in numbers.T])
    perplexity = np.exp([entropy_of_counts(row) for row in counts])
    return CodeUsage(counts.astype(np.int64), (counts > 0).sum(1), perplexity)


def latent_nmi(codes: Array, *, discrete: bool, bins: int = 20) -> Floats:
    """Normalised mutual information between latents: 2 I(a; b)/(H(a) + H(b)), plug-in estimates.

    Range [0, 1]: 1 for latents that determine each other, the diagonal among them; independent ones have a
    little more than 0, by about (A - 1)(B - 1)/(samples (H(a) + H(b))) with A and B values. Continuous codes
    are cut into equal intervals between their extremes. A constant latent has 0, its diagonal too.

    Args:
        codes: (samples, latents): integers of at least 0 if discrete, else finite numbers.
        discrete: whether codes are taken as they are, or cut into intervals.
        bins: the number of intervals.

    Returns:
        float64 (latents, latents), symmetric.

    Raises:
        TypeError: discrete codes that are not integers, codes that are not numbers, another type of option.
        ValueError: another shape, fewer than 2 samples, NaN or infinity, a negative discrete code, fewer than
            2 bins.
    """
    check_count("bins", bins, 2)
    table = read_codes("codes", codes, discrete=discrete)
    table = table if discrete else binned(table, bins)
    information, entropy = discrete_information(table, table), entropies(table)
    both = entropy[:, None] + entropy
    nmi = np.zeros_like(both)
    np.divide(information + information.T, both, out=nmi, where=both > 0)
    return np.minimum(nmi, 1.0)


def total_correlation(codes: Array, *, discrete: bool) -> float:
    """Total correlation of the codes, KL(q(z) || prod_j q(z_j)) in nats (Watanabe, 1960).

    Discrete: sum_j H(z_j) - H(z), plug-in estimates. H(z) cannot exceed ln(samples): where the latents
    together have more combinations in use than there are samples, the estimate is far too large, and only
    tells models apart that were measured with the same number of samples.

    Continuous: -1/2 ln det of the correlation matrix, that of a Gaussian with the codes' covariance, a lower
    bound if each latent by itself is Gaussian.

    Range [0, inf). Constant latents are independent of all others. Continuous latents that determine each
    other linearly, or fewer samples than latents, would give infinity: eigenvalues below 2.2e-16 times the
    number of latents are taken as that, so that it is large and finite.

    Args:
        codes: (samples, latents): integers of at least 0 if discrete, else finite numbers.
        discrete: which of the two.

    Raises:
        TypeError: discrete codes that are not integers, codes that are not numbers.
        ValueError: another shape, fewer than 2 samples, NaN or infinity, a negative discrete code.
    """
    table = read_codes("codes", codes, discrete=discrete)
    if discrete:
        joint = np.unique(table, axis=0, return_counts=True)[1]
        return max(0.0, float(entropies(table).sum()) - entropy_of_counts(joint))
    scaled = standardised(table)
    eigenvalues = np.linalg.eigvalsh(scaled.T @ scaled / len(scaled))
    smallest = np.finfo(np.float64).eps * table.shape[1]
    return max(0.0, float(-0.5 * np.log(np.maximum(eigenvalues, smallest)).sum()))


def _check_range(indices: Ints, codes: int) -> None:
    if indices.max() >= codes:
        raise ValueError(f"indices must be in [0, {codes}), but held {indices.max()}")
