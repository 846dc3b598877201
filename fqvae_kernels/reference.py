"""The quantizers in plain PyTorch: what the other backends are checked against, and the last fallback.

Nothing here is fast. Gradients are PyTorch's own, so (N, K) tensors live from forward to backward. Inside it
is float64 for float64 input, float32 for every other dtype, which is also why autocast changes nothing. The
functions expect checked arguments: `fqvae_kernels.functional` is the public face.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fqvae_kernels._seeds import place_of_numbers, seed_to_tensor
from fqvae_kernels._types import GumbelQuantized, NearestQuantized

_CPU = torch.device("cpu")
_WORD = 0xFFFFFFFF
_PHILOX_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_PHILOX_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_PHILOX_ROUNDS = 10

# Stands for a logit of minus infinity. exp(-1e18 / temperature) is 0 for every sane temperature, and 0 *
# -1e18 is 0 where 0 * -inf would be NaN.
_LOWEST_LOGIT = -1e18


def gumbel_quantize(
    z: Tensor,
    codebook: Tensor,
    *,
    seed: int | Tensor,
    temperature: float | Tensor = 1.0,
    hard: bool = False,
    row_offset: int = 0,
    return_weights: bool = False,
) -> GumbelQuantized:
    """Sample one code for each scalar of z; see `fqvae_kernels.gumbel_quantize`.

    z: any shape. codebook: (K,), or (L, K) with z of shape (..., L).
    """
    codebook = codebook.to(_compute_dtype(z))
    usable = z.isfinite()
    logits = _distance_logits(_zero_unless(usable, z).to(codebook.dtype), codebook)
    return _sample(logits, codebook, usable, z.dtype, seed, temperature, hard, row_offset, return_weights)


def gumbel_quantize_logits(
    logits: Tensor,
    codebook: Tensor,
    *,
    seed: int | Tensor,
    temperature: float | Tensor = 1.0,
    hard: bool = False,
    row_offset: int = 0,
    return_weights: bool = False,
) -> GumbelQuantized:
    """Sample one code for each row of logits; see `fqvae_kernels.gumbel_quantize_logits`.

    logits: (..., K). codebook: (K,), or (L, K) with logits of shape (..., L, K).
    """
    codebook = codebook.to(_compute_dtype(logits))
    # The largest logit is finite unless the row holds NaN or +inf, or nothing but -inf.
    usable = logits.detach().amax(-1).isfinite()
    shifted = _zero_unless(usable.unsqueeze(-1), logits).to(codebook.dtype)
    # Subtracting a constant from a row changes nothing that follows, so the constant needs no gradient.
    shifted = shifted - shifted.detach().amax(-1, keepdim=True)
    shifted = shifted.clamp(min=_LOWEST_LOGIT)
    return _sample(
        shifted, codebook, usable, logits.dtype, seed, temperature, hard, row_offset, return_weights
    )


def nearest_quantize(z: Tensor, codebook: Tensor) -> NearestQuantized:
    """Replace each scalar of z by its nearest code, the gradient going straight through to z.

    z: any shape. codebook: (K,), or (L, K) with z of shape (..., L); it gets no gradient.
    """
    codebook = codebook.detach().to(_compute_dtype(z))
    usable = z.isfinite()
    finite_z = _zero_unless(usable, z)
    indices = _nearest_index(finite_z.detach().to(codebook.dtype), codebook)
    # The difference is exactly 0, so the value is exactly the code's.
    quantized = _take(codebook, indices).to(z.dtype) + (finite_z - finite_z.detach())
    return NearestQuantized(torch.where(usable, quantized, math.nan), indices)


def gumbel_noise(
    seed: int | Tensor,
    rows: int,
    codes: int,
    *,
    row_offset: int = 0,
    device: torch.device = _CPU,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Standard Gumbel noise g = -ln(-ln u) of shape (rows, codes), u = ((word >> 9) + 1/2) / 2**23.

    Both logarithms are taken in float64: a compiler's fast float32 logarithm near u = 1 would decide other
    winners.
    """
    if torch.compiler.is_compiling():
        # This function again, as one opaque operator: Inductor spends minutes on ten rounds of Philox in one
        # kernel.
        noise: Tensor = torch.ops.fqvae_kernels.gumbel_noise(
            seed_to_tensor(seed, place_of_numbers(device)),
            rows,
            codes,
            row_offset,
            device,
            dtype,
            "reference",
        )
        return noise
    words = philox_words(seed, rows, codes, row_offset=row_offset, device=device)
    # Metal has no float64.
    precise = torch.float32 if words.device.type == "mps" else torch.float64
    uniform = ((words >> 9).to(precise) + 0.5) * 2.0**-23
    return (-torch.log(-torch.log(uniform))).to(dtype)


def philox_words(
    seed: int | Tensor, rows: int, codes: int, *, row_offset: int = 0, device: torch.device = _CPU
) -> Tensor:
    """Words of Philox4x32-10 (Salmon et al., SC 2011), shape (rows, codes), int64 values in [0, 2**32).

    Key: the seed, low word first. Counter of row n = row_offset + i and code k: (k div 4, 0, n low, n high);
    the word is number k mod 4 of the four that come out.
    """
    seed = seed_to_tensor(seed, device).to(device)
    keys = (seed & _WORD, (seed >> 32) & _WORD)
    row = (torch.arange(rows, dtype=torch.int64, device=device) + row_offset).unsqueeze(1)
    blocks = (codes + 3) // 4
    c0 = torch.arange(blocks, dtype=torch.int64, device=device).unsqueeze(0)
    c1, c2, c3 = torch.zeros_like(row), row & _WORD, (row >> 32) & _WORD
    for round_number in range(_PHILOX_ROUNDS):
        k0, k1 = (
            (key + round_number * step) & _WORD for key, step in zip(keys, _PHILOX_KEY_STEPS, strict=True)
        )
        high0, low0 = _multiply_words(c0, _PHILOX_MULTIPLIERS[0])
        high1, low1 = _multiply_words(c2, _PHILOX_MULTIPLIERS[1])
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
    words = torch.stack(torch.broadcast_tensors(c0, c1, c2, c3), dim=-1)
    return words.reshape(rows, 4 * blocks)[:, :codes]


def _multiply_words(word: Tensor, multiplier: int) -> tuple[Tensor, Tensor]:
    """High and low word of a 32 x 32 bit product, by halves of the multiplier: int64 never overflows."""
    low = word * (multiplier & 0xFFFF)
    middle = word * (multiplier >> 16) + (low >> 16)
    return middle >> 16, ((middle & 0xFFFF) << 16) | (low & 0xFFFF)


def _distance_logits(z: Tensor, codebook: Tensor) -> Tensor:
    """-(z - m[k])**2 less the same for the nearest code m*, shape (*z.shape, K); z finite, in the codebook's
    dtype.

    As (m[k] - m*)(2(z - m*) - (m[k] - m*)) it does not cancel for far z. m* needs no gradient, since what it
    subtracts is the same for every k.
    """
    nearest = _take(codebook.detach(), _nearest_index(z.detach(), codebook.detach())).unsqueeze(-1)
    # An eighth of every length keeps both factors finite whatever z and m are, so that no gradient meets 0 *
    # inf. Only the product can overflow, and 64 = 8 * 8 gives the scale back without rounding.
    gap = codebook / 8 - nearest / 8
    lean = 2 * (z.unsqueeze(-1) / 8 - nearest / 8) - gap
    return (64 * (gap * lean)).clamp(min=_LOWEST_LOGIT, max=-_LOWEST_LOGIT)


def _nearest_index(z: Tensor, codebook: Tensor) -> Tensor:
    """Index of the code nearest to z, lowest on a tie; int64, shape of z.

    Far from all codes |z - m[k]| would round to the same number for every k; z moved to the outermost code
    has the same nearest code.
    """
    inside = torch.minimum(torch.maximum(z, codebook.amin(-1)), codebook.amax(-1))
    return (inside.unsqueeze(-1) - codebook).abs().argmin(-1)


def _sample(
    logits: Tensor,
    codebook: Tensor,
    usable: Tensor,
    dtype: torch.dtype,
    seed: int | Tensor,
    temperature: float | Tensor,
    hard: bool,
    row_offset: int,
    return_weights: bool,
) -> GumbelQuantized:
    """Gumbel-Softmax over finite logits (..., K) whose largest is about 0; unusable rows become NaN."""
    codes = logits.shape[-1]
    log_posterior = logits.log_softmax(-1)
    kl = (log_posterior.exp() * (log_posterior + math.log(codes))).sum(-1)
    # Rounding can leave it just below 0. Subtracting a constant, unlike a clamp, keeps the gradient.
    kl = kl - kl.detach().clamp(max=0)

    noise = gumbel_noise(
        seed, usable.numel(), codes, row_offset=row_offset, device=logits.device, dtype=logits.dtype
    )
    scores = logits + noise.reshape(logits.shape)
    indices = scores.argmax(-1)
    if isinstance(temperature, Tensor):
        temperature = temperature.to(scores.device, scores.dtype)
    weights = (scores / temperature).softmax(-1)
    if hard:
        # Straight-through: the value is the one-hot's, and what carries the soft gradient is exactly 0. The
        # codebook's own gradient is the one-hot's too, so the soft sum sees it as a constant.
        soft = (weights * codebook.detach()).sum(-1)
        quantized = _take(codebook, indices) + (soft - soft.detach())
        one_hot = indices.unsqueeze(-1) == torch.arange(codes, device=indices.device)
        weights = one_hot.to(weights.dtype) + (weights - weights.detach())
    else:
        quantized = (weights * codebook).sum(-1)
    return GumbelQuantized(
        torch.where(usable, quantized, math.nan).to(dtype),
        indices,
        torch.where(usable, kl, math.nan),
        torch.where(usable.unsqueeze(-1), weights, math.nan).to(dtype) if return_weights else None,
    )


def _take(codebook: Tensor, indices: Tensor) -> Tensor:
    """The code at each index: codebook (K,) or (L, K), indices (...) or (..., L)."""
    every = codebook.expand(*indices.shape, codebook.shape[-1])
    return every.gather(-1, indices.unsqueeze(-1)).squeeze(-1)


def _zero_unless(usable: Tensor, values: Tensor) -> Tensor:
    """values with 0 where they cannot be used: no NaN then enters the arithmetic, forward or backward."""
    return torch.where(usable, values, 0)


def _compute_dtype(values: Tensor) -> torch.dtype:
    return torch.float64 if values.dtype == torch.float64 else torch.float32
