"""What the library must compute, in float64 NumPy: the truth that the tests compare with.

Written from the definitions of noise, forward pass and gradients, and from nothing in the package.
test_truth.py checks this file against published vectors, high precision and finite differences.

Shapes: N rows, K codes, L codebooks. ``input`` is z ``(N,)`` or, with ``is_logits``, logits ``(N, K)``.
``codebook`` is ``(K,)`` or ``(L, K)``; row n then uses codebook ``n mod L``. ``estimator`` is "gumbel",
"straight_through" or "reinmax"; the last two draw the index from the posterior, by one uniform number a row.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)


def philox4x32(counter, key):
    """Philox4x32-10 (Salmon et al., SC 2011).

    counter: four 32-bit values, key: two, each an int or an array. Returns four uint64 arrays.
    """
    x0, x1, x2, x3 = (np.asarray(value, dtype=np.uint64) for value in counter)
    k0, k1 = (int(value) for value in key)
    for _ in range(10):
        product0 = np.uint64(0xD2511F53) * x0
        product1 = np.uint64(0xCD9E8D57) * x2
        x0, x1, x2, x3 = (
            (product1 >> _HALF) ^ x1 ^ np.uint64(k0),
            product1 & _LOW,
            (product0 >> _HALF) ^ x3 ^ np.uint64(k1),
            product0 & _LOW,
        )
        k0 = (k0 + 0x9E3779B9) % 2**32
        k1 = (k1 + 0xBB67AE85) % 2**32
    return x0, x1, x2, x3


def _row_numbers(rows: int, row_offset: int) -> NDArray[np.uint64]:
    return np.array([(row_offset + i) % 2**64 for i in range(rows)], dtype=np.uint64)


def words(seed: int, rows: int, codes: int, row_offset: int = 0) -> NDArray[np.uint32]:
    """The random words of rows ``row_offset + i``: key = seed, counter = (k div 4, 0, n low, n high)."""
    n = _row_numbers(rows, row_offset)[:, None]
    block = np.arange((codes + 3) // 4, dtype=np.uint64)[None, :]
    counter = (block, np.uint64(0), n & _LOW, n >> _HALF)
    four = np.broadcast_arrays(*philox4x32(counter, (seed % 2**32, seed >> 32)))
    return np.stack(four, axis=-1).reshape(rows, 4 * block.size)[:, :codes].astype(np.uint32)


def uniform(word) -> Array:
    """u = ((word >> 9) + 0.5) / 2^23, exact in float64."""
    return (np.asarray(word, dtype=np.uint32) >> np.uint32(9)).astype(np.float64) * 2.0**-23 + 2.0**-24


def gumbel_from_words(word) -> Array:
    """g = -ln(-ln u). 1 - u is exact, so log1p keeps every digit where u is near 1."""
    u = uniform(word)
    exponential = np.where(u > 0.5, -np.log1p(-(1.0 - u)), -np.log(u))
    return -np.log(exponential)


def gumbel(seed: int, rows: int, codes: int, row_offset: int = 0) -> Array:
    """The noise of the rows, ``(rows, codes)``."""
    return gumbel_from_words(words(seed, rows, codes, row_offset))


def row_uniform(seed: int, rows: int, row_offset: int = 0) -> Array:
    """One u for every row, ``(rows,)``: output 0 of counter (0, 1, n low, n high), key = seed."""
    n = _row_numbers(rows, row_offset)
    counter = (np.uint64(0), np.uint64(1), n & _LOW, n >> _HALF)
    return uniform(philox4x32(counter, (seed % 2**32, seed >> 32))[0].astype(np.uint32))


def draw(cumulative: Array, u: Array) -> NDArray[np.int64]:
    """The inverse CDF: the smallest k whose ``cumulative[k]``, the posterior summed up to k, is above u."""
    # The sum of all is 1 up to its rounding, and u is at most 1 - 2^-24: some code is always found.
    return (cumulative > u[:, None]).argmax(axis=1)


@dataclass
class Forward:
    """Results of `forward`: ``(N,)`` and, from weights to posterior, ``(N, K)``."""

    quantized: Array
    indices: NDArray[np.int64]
    kl: Array
    weights: Array
    soft: Array  # softmax(scores / temperature): w of "gumbel", p of the other estimators
    scores: Array  # l + g - max l, not divided by the temperature; without g where the index is drawn
    relative_logits: Array  # l - max l
    posterior: Array
    bad: NDArray[np.bool_]  # rows that hold what is not finite, or whose codebook does
    u: Array | None = None  # what draws the index, and the sums of the posterior; None for "gumbel"
    cumulative: Array | None = None


def _rows_of(codebook, rows: int) -> tuple[Array, NDArray[np.bool_]]:
    """The codes of every row, ``(N, K)``, and the rows that a NaN or infinite code makes unusable.

    The codes of unusable rows are zero.
    """
    book = np.atleast_2d(np.asarray(codebook, dtype=np.float64))
    unusable = ~np.isfinite(book).all(axis=1)
    latent = np.arange(rows) % book.shape[0]
    return np.where(unusable[:, None], 0.0, book)[latent], unusable[latent]


def _one_hot(index, codes: int) -> Array:
    return (np.arange(codes) == index[:, None]).astype(np.float64)


def _sum_of_rows(per_row: Array, book: Array) -> Array:
    """``(N, K)`` summed over the rows of each codebook, in the shape of the codebook."""
    codes = book.shape[-1]
    return per_row.reshape(-1, book.size // codes, codes).sum(axis=0).reshape(book.shape)


def _softmax(x: Array) -> Array:
    # A row may reach down to the end of the range, or to -inf: such an entry weighs nothing.
    with np.errstate(over="ignore"):
        e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def _product(a: Array, b: Array) -> Array:
    """a * b where a weight a of exactly zero wins over an infinite b."""
    with np.errstate(invalid="ignore"):
        return np.where(a == 0.0, 0.0, a * b)


def relative_logits(z: Array, m: Array) -> Array:
    """-(z - m)^2 minus its maximum over k, so that a far z loses nothing. z ``(N,)``, m ``(N, K)``."""
    # Clamping z does not change which code is nearest and keeps the distances exact.
    clamped = np.clip(z, m.min(axis=1), m.max(axis=1))
    rows = np.arange(len(z))
    nearest = m[rows, np.abs(clamped[:, None] - m).argmin(axis=1)][:, None]
    with np.errstate(over="ignore"):
        # Where the distances of several codes round to the same number, these tell which of them is nearest.
        step = m - nearest
        above = 2.0 * (step * ((clamped[:, None] - nearest) - step / 2.0))
        nearest = m[rows, above.argmax(axis=1)][:, None]
        step = m - nearest
        # Since nearest is nearest, the true value is never above zero; rounding may be.
        return np.minimum(2.0 * (step * ((z[:, None] - nearest) - step / 2.0)), 0.0)


def nearest(z, codebook) -> NDArray[np.int64]:
    """The nearest code of each z, the lowest on a tie; of bad rows, some index."""
    z = np.asarray(z, dtype=np.float64)
    m, unusable = _rows_of(codebook, len(z))
    clamped = np.clip(np.where(np.isfinite(z) & ~unusable, z, 0.0), m.min(axis=1), m.max(axis=1))
    return np.abs(clamped[:, None] - m).argmin(axis=1)


def nearest_quantized(z, codebook) -> Array:
    """The nearest code's value; NaN in bad rows. They pass no gradient; the others pass theirs to z."""
    z = np.asarray(z, dtype=np.float64)
    m, unusable = _rows_of(codebook, len(z))
    return np.where(np.isfinite(z) & ~unusable, m[np.arange(len(z)), nearest(z, codebook)], np.nan)


def forward(
    input,
    codebook,
    *,
    seed=0,
    row_offset=0,
    temperature=1.0,
    hard=False,
    is_logits=False,
    estimator="gumbel",
    noise=None,
    u=None,
    indices=None,
) -> Forward:
    """The forward pass. noise ``(N, K)`` or u ``(N,)`` replaces the seed's; indices what is drawn."""
    input = np.asarray(input, dtype=np.float64)
    rows = input.shape[0]
    m, unusable = _rows_of(codebook, rows)
    codes = m.shape[1]
    if is_logits:
        bad = np.isnan(input).any(axis=1) | (input == np.inf).any(axis=1) | (input == -np.inf).all(axis=1)
        bad |= unusable
        kept = np.where(bad[:, None], 0.0, input)
        with np.errstate(over="ignore"):
            logits = kept - kept.max(axis=1, keepdims=True)
    else:
        bad = ~np.isfinite(input) | unusable
        logits = relative_logits(np.where(bad, 0.0, input), m)
    q = _softmax(logits)
    log_partition = np.log(np.exp(logits).sum(axis=1, keepdims=True))
    kl = _product(q, logits - log_partition).sum(axis=1) + np.log(codes)
    if estimator == "gumbel":
        scores = logits + (gumbel(seed, rows, codes, row_offset) if noise is None else noise)
        index, cumulative = scores.argmax(axis=1), None
    else:
        u = row_uniform(seed, rows, row_offset) if u is None else np.asarray(u, dtype=np.float64)
        scores, cumulative = logits, q.cumsum(axis=1)
        index = draw(cumulative, u)
    if indices is not None:
        index = np.asarray(indices)
    with np.errstate(over="ignore"):
        soft = _softmax((scores - scores.max(axis=1, keepdims=True)) / temperature)
    is_code = hard or estimator != "gumbel"
    weights = _one_hot(index, codes) if is_code else soft
    quantized = m[np.arange(rows), index] if is_code else (soft * m).sum(axis=1)
    quantized, kl = np.where(bad, np.nan, quantized), np.where(bad, np.nan, kl)
    weights = np.where(bad[:, None], np.nan, weights)
    return Forward(quantized, index, kl, weights, soft, scores, logits, q, bad, u, cumulative)


@dataclass
class Gradients:
    """Gradients of sum(quantized * a) + sum(kl * h) + sum(weights * v)."""

    input: Array  # like the input
    codebook: Array  # like the codebook
    temperature: float
    # The same sums over magnitudes, taken before anything cancels: an error of one part in a million in every
    # weight moves a gradient by at most a millionth of these.
    input_size: Array
    codebook_size: Array
    temperature_size: float


def gradients(
    input,
    codebook,
    *,
    grad_quantized=None,
    grad_kl=None,
    grad_weights=None,
    seed=0,
    row_offset=0,
    temperature=1.0,
    hard=False,
    is_logits=False,
    estimator="gumbel",
    noise=None,
    u=None,
    indices=None,
) -> Gradients:
    """The gradients by hand. grad_quantized a and grad_kl h are ``(N,)``, grad_weights v is ``(N, K)``.

    With s = (l + g) / tau and c = a m + v: ds = w (c - sum w c) and dl = ds / tau + h q (l - sum q l), and
    from dl those of z and m. Straight-through (hard) differs only in the direct term of m: a at the index.
    So does "straight_through", whose s has no g. "reinmax" has another dl and no gradient of tau.
    """
    input = np.asarray(input, dtype=np.float64)
    book = np.asarray(codebook, dtype=np.float64)
    rows, codes = input.shape[0], book.shape[-1]
    result = forward(
        input,
        book,
        seed=seed,
        row_offset=row_offset,
        temperature=temperature,
        is_logits=is_logits,
        estimator=estimator,
        noise=noise,
        u=u,
        indices=indices,
    )
    a = (np.zeros(rows) if grad_quantized is None else np.asarray(grad_quantized, dtype=np.float64))[:, None]
    h = (np.zeros(rows) if grad_kl is None else np.asarray(grad_kl, dtype=np.float64))[:, None]
    v = np.zeros((rows, codes)) if grad_weights is None else np.asarray(grad_weights, dtype=np.float64)
    bad = result.bad[:, None]
    a, h, v = np.where(bad, 0.0, a), np.where(bad, 0.0, h), np.where(bad, 0.0, v)
    input = np.where(bad if is_logits else result.bad, 0.0, input)
    m = np.where(bad, 0.0, _rows_of(book, rows)[0])

    w, q, relative = result.soft, result.posterior, result.relative_logits
    c = a * m + v
    # Taking a constant off c changes nothing and keeps the difference small.
    c = c - np.take_along_axis(c, w.argmax(axis=1)[:, None], axis=1)
    drawn = _one_hot(result.indices, codes)
    half = (w + drawn) / 2.0  # pi of "reinmax"

    def mean(weight, size):
        return _product(weight, size).sum(axis=1, keepdims=True)

    if estimator == "reinmax":
        ds = np.zeros_like(w)  # nothing passes through the temperature
        dl = 2.0 * half * (c - mean(half, c)) - 0.5 * q * (c - mean(q, c))
    else:
        ds = w * (c - mean(w, c))
        dl = ds / temperature
    dl = dl + h * _product(q, relative - mean(q, relative))
    best = result.scores.max(axis=1, keepdims=True)
    with np.errstate(over="ignore"):
        per_score = -_product(ds, (result.scores - best) / temperature / temperature)

    direct = a * (drawn if hard or estimator != "gumbel" else w)
    if is_logits:
        d_input, per_row = dl, direct
    else:
        # The rows of dl sum to zero, so any code may be taken off m: the most probable one.
        anchor = np.take_along_axis(m, q.argmax(axis=1)[:, None], axis=1)
        d_input = 2.0 * (dl * (m - anchor)).sum(axis=1)
        per_row = 2.0 * _product(dl, input[:, None] - m) + direct
    d_codebook = _sum_of_rows(per_row, book)

    size = np.abs(a * m + v)
    logit_size = 1.0 - relative
    if estimator == "reinmax":
        ds_size = np.zeros_like(w)
        dl_size = 2.0 * half * (size + mean(half, size)) + 0.5 * q * (size + mean(q, size))
    else:
        ds_size = w * (size + mean(w, size))
        dl_size = ds_size / temperature
    dl_size = dl_size + np.abs(h) * (_product(q, logit_size) + q * mean(q, logit_size))
    with np.errstate(over="ignore"):
        temperature_size = _product(ds_size, np.abs(result.scores) / temperature / temperature).sum()
    row_size, input_size = np.abs(direct), dl_size
    if not is_logits:
        # Beyond the codes and a little more, what is left of a far row does not grow with z.
        reach = np.minimum(np.abs(input[:, None] - m), np.ptp(m, axis=1, keepdims=True) + 4.0)
        row_size = np.maximum(row_size + 2.0 * dl_size * reach, np.abs(per_row))
        input_size = 2.0 * (dl_size * reach).sum(axis=1)
    codebook_size = _sum_of_rows(row_size, book)
    return Gradients(
        d_input, d_codebook, float(per_score.sum()), input_size, codebook_size, float(temperature_size)
    )
