"""The quantizers in plain PyTorch: what the other backends are checked against, and the last fallback.

Nothing here is fast. Gradients are PyTorch's own, to every order and in both modes, so (N, K) tensors live
from forward to backward. Inside it is float64 for float64 input, float32 for every other dtype, which is also
why autocast changes nothing. The functions expect checked arguments: `fqvae_kernels.functional` is the public
face.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

from fqvae_kernels._call import Call, Outputs, draws, gives_codes
from fqvae_kernels._seeds import seed_to_tensor

_CPU = torch.device("cpu")
_WORD = 0xFFFFFFFF
_PHILOX_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_PHILOX_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_PHILOX_ROUNDS = 10

# Stands for a logit of minus infinity: 0 * -1e18 is 0 where 0 * -inf would be NaN.
_LOWEST_LOGIT = -1e18
# The exponential of this is 0: what an exponent may be at least, and that of a masked code.
_LOWEST_EXPONENT = -1e4


class Draw(Protocol):
    """How a pass draws: the Gumbel noise (*rows, codes), or one uniform number a row (*rows,)."""

    def __call__(self, call: Call, input: Tensor, codebook: Tensor) -> Tensor:
        """codebook: in the compute dtype, which is that of the result."""


def draw(call: Call, input: Tensor, codebook: Tensor) -> Tensor:
    """The draws of a pass over plain tensors."""
    shape = input.shape[:-1] if call.is_logits else input.shape
    codes, dtype, device = codebook.shape[-1], codebook.dtype, input.device
    if call.estimator == "gumbel":
        noise = gumbel_noise(
            call.seed, shape.numel(), codes, row_offset=call.row_offset, device=device, dtype=dtype
        )
        return noise.reshape(*shape, codes)
    uniform = row_uniform(call.seed, shape.numel(), row_offset=call.row_offset, device=device, dtype=dtype)
    return uniform.reshape(shape)


def quantize(input: Tensor, codebook: Tensor, call: Call, draw: Draw = draw) -> Outputs:
    """One pass of any estimator; see `fqvae_kernels.gumbel_quantize` and `nearest_quantize`.

    input: z of any shape, or logits (..., K). codebook: (K,); or (L, K) with z (..., L) or logits (..., L,
    K).
    """
    codebook = codebook.to(torch.float64 if input.dtype == torch.float64 else torch.float32)
    finite_book = codebook.detach().isfinite().all(-1)  # () or (L,)
    codebook = torch.where(finite_book.unsqueeze(-1), codebook, codebook.new_zeros(()))
    drawn = draw(call, input, codebook) if call.estimator != "nearest" and draws(call.wants) else None
    if call.is_logits:
        # The largest logit is finite unless the row holds NaN or +inf, or nothing but -inf.
        usable = input.detach().amax(-1).isfinite() & finite_book
        logits = _zero_unless(usable.unsqueeze(-1), input).to(codebook.dtype)
        # Subtracting a constant from a row changes nothing that follows, so the constant needs no gradient.
        logits = (logits - logits.detach().amax(-1, keepdim=True)).clamp(min=_LOWEST_LOGIT)
        masked = (input == -math.inf) & usable.unsqueeze(-1)
        return _sample(logits, masked, codebook, usable, call, input.dtype, drawn)
    usable = input.detach().isfinite() & finite_book
    z = _zero_unless(usable, input)
    if call.estimator == "nearest":
        return _nearest(z, codebook, usable, call)
    logits = distance_logits(z.to(codebook.dtype), codebook)
    return _sample(logits, None, codebook, usable, call, input.dtype, drawn)


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
    words = philox_words(seed, rows, codes, row_offset=row_offset, device=device)
    return (-torch.log(-torch.log(_uniform(words)))).to(dtype)


def row_uniform(
    seed: int | Tensor,
    rows: int,
    *,
    row_offset: int = 0,
    device: torch.device = _CPU,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """One number a row, uniform on (0, 1) and exact in float32, shape (rows,): what an index is drawn by.

    u = ((word >> 9) + 1/2) / 2**23, where word is output 0 of Philox with counter (0, 1, n low, n high).
    """
    words = _philox(seed, torch.zeros(1, 1, dtype=torch.int64, device=device), 1, rows, row_offset, device)
    return _uniform(words[:, 0, 0]).to(dtype)


def philox_words(
    seed: int | Tensor, rows: int, codes: int, *, row_offset: int = 0, device: torch.device = _CPU
) -> Tensor:
    """Words of Philox4x32-10 (Salmon et al., SC 2011), shape (rows, codes), int64 values in [0, 2**32).

    Key: the seed, low word first. Counter of row n = row_offset + i and code k: (k div 4, 0, n low, n high);
    the word is number k mod 4 of the four that come out.
    """
    blocks = torch.arange((codes + 3) // 4, dtype=torch.int64, device=device).unsqueeze(0)
    words = _philox(seed, blocks, 0, rows, row_offset, device)
    return words.flatten(1)[:, :codes]


def _philox(
    seed: int | Tensor, c0: Tensor, second: int, rows: int, row_offset: int, device: torch.device
) -> Tensor:
    """The four outputs of each row and block, (rows, blocks, 4), for counters (c0, second, n low, n high)."""
    seed = seed_to_tensor(seed, device).to(device)
    keys = (seed & _WORD, (seed >> 32) & _WORD)
    row = (torch.arange(rows, dtype=torch.int64, device=device) + row_offset).unsqueeze(1)
    c1, c2, c3 = torch.full_like(row, second), row & _WORD, (row >> 32) & _WORD
    for round_number in range(_PHILOX_ROUNDS):
        k0, k1 = (
            (key + round_number * step) & _WORD for key, step in zip(keys, _PHILOX_KEY_STEPS, strict=True)
        )
        high0, low0 = _multiply_words(c0, _PHILOX_MULTIPLIERS[0])
        high1, low1 = _multiply_words(c2, _PHILOX_MULTIPLIERS[1])
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
    return torch.stack(torch.broadcast_tensors(c0, c1, c2, c3), dim=-1)


def _uniform(words: Tensor) -> Tensor:
    # Metal has no float64.
    precise = torch.float32 if words.device.type == "mps" else torch.float64
    return ((words >> 9).to(precise) + 0.5) * 2.0**-23


def _multiply_words(word: Tensor, multiplier: int) -> tuple[Tensor, Tensor]:
    """High and low word of a 32 x 32 bit product, by halves of the multiplier: int64 never overflows."""
    low = word * (multiplier & 0xFFFF)
    middle = word * (multiplier >> 16) + (low >> 16)
    return middle >> 16, ((middle & 0xFFFF) << 16) | (low & 0xFFFF)


def distance_logits(z: Tensor, codebook: Tensor) -> Tensor:
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
    masked: Tensor | None,
    codebook: Tensor,
    usable: Tensor,
    call: Call,
    dtype: torch.dtype,
    drawn: Tensor | None,
) -> Outputs:
    """A sampling estimator over finite logits (..., K) whose largest is about 0; unusable rows become NaN.

    masked: the codes that weigh nothing, or None. drawn: None if the call wants only what does not depend on
    it.
    """
    log_posterior = logits.log_softmax(-1)
    kl = _kl(log_posterior, usable) if call.wants.kl else None
    if drawn is None:
        return None, None, kl, None
    # Beyond the largest number of the dtype a temperature changes nothing more.
    temperature = call.temperature
    if isinstance(temperature, Tensor):
        temperature = temperature.to(logits.device, logits.dtype).clamp(max=torch.finfo(logits.dtype).max)
    else:
        temperature = min(temperature, torch.finfo(logits.dtype).max)
    if call.estimator == "gumbel":
        scores = logits + drawn
        indices = scores.argmax(-1)
        soft = _softmax(scores, temperature, masked)
    else:
        indices = _draw_index(log_posterior.detach().exp(), drawn)
        soft = _softmax(logits, temperature, masked)
        if call.estimator == "reinmax":
            soft = _reinmax(soft.detach(), indices, logits, log_posterior) + 0 * temperature
    # Codes are seen from the one that the largest logit belongs to: what is the same for all of them then
    # sends no rounding error to a far z. An eighth of every difference is finite.
    near = _take(codebook.detach(), logits.detach().argmax(-1))
    offset = codebook / 8 - near.unsqueeze(-1) / 8
    if gives_codes(call):
        # The value is the one-hot's, and what carries the soft gradient is exactly 0. The codebook's own
        # gradient is the one-hot's too, so the soft sum sees it as a constant.
        quantized = _take(codebook, indices) + 8 * ((soft - soft.detach()) * offset.detach()).sum(-1)
    else:
        quantized = near + 8 * (soft * offset).sum(-1)
    weights = None
    if call.wants.weights:
        weights = soft
        if gives_codes(call):
            weights = _one_hot(indices, logits.shape[-1], soft.dtype) + (soft - soft.detach())
        weights = torch.where(usable.unsqueeze(-1), weights, math.nan).to(dtype)
    return torch.where(usable, quantized, math.nan).to(dtype), indices, kl, weights


def _kl(log_posterior: Tensor, usable: Tensor) -> Tensor:
    """KL(posterior || uniform) of each row, NaN where it is not usable."""
    kl = (log_posterior.exp() * (log_posterior + math.log(log_posterior.shape[-1]))).sum(-1)
    # Rounding can leave it just below 0. Subtracting a constant, unlike a clamp, keeps the gradient.
    return torch.where(usable, kl - kl.detach().clamp(max=0), math.nan)


def _draw_index(posterior: Tensor, uniform: Tensor) -> Tensor:
    """The smallest k with posterior[0] + ... + posterior[k] > uniform: no code of posterior 0 is drawn."""
    precise = posterior.dtype if posterior.device.type == "mps" else torch.float64
    cumulated = posterior.to(precise).cumsum(-1)
    below = cumulated <= uniform.unsqueeze(-1).to(precise) * cumulated[..., -1:]
    return below.sum(-1)


def _softmax(scores: Tensor, temperature: float | Tensor, masked: Tensor | None) -> Tensor:
    """softmax(scores / temperature) at every legal temperature, and 0 where masked."""
    below = scores - scores.detach().amax(-1, keepdim=True)
    if isinstance(temperature, Tensor):
        # The ratio is 1. Through it the temperature gets a gradient that a tiny one does not overflow.
        ratio = temperature.detach() / temperature
        temperature = temperature.detach()
        below = torch.maximum(below, _LOWEST_EXPONENT * temperature)
        exponents = below / temperature * ratio
    else:
        below = below.clamp(min=max(_LOWEST_EXPONENT * temperature, -torch.finfo(below.dtype).max))
        exponents = below / temperature
    return (exponents if masked is None else exponents.masked_fill(masked, _LOWEST_EXPONENT)).softmax(-1)


def _reinmax(soft: Tensor, indices: Tensor, logits: Tensor, log_posterior: Tensor) -> Tensor:
    """Weights (..., K) whose derivative is ReinMax's (Liu et al., NeurIPS 2023, eq. 8).

    pi is half way from the soft weights to the one-hot, and enters the derivative as a constant: the
    temperature, which has a part in pi alone, gets a gradient of 0.
    """
    middle = (soft + _one_hot(indices, logits.shape[-1], soft.dtype)) / 2
    return 2 * (middle.log() + (logits - logits.detach())).softmax(-1) - 0.5 * log_posterior.exp()


def _one_hot(indices: Tensor, codes: int, dtype: torch.dtype) -> Tensor:
    return (indices.unsqueeze(-1) == torch.arange(codes, device=indices.device)).to(dtype)


def _nearest(z: Tensor, codebook: Tensor, usable: Tensor, call: Call) -> Outputs:
    """The nearest code of each z, which is 0 where it is not usable; the gradient goes straight to z."""
    codebook = codebook.detach()
    indices = _nearest_index(z.detach().to(codebook.dtype), codebook)
    # The difference is exactly 0, so the value is exactly the code's.
    quantized = _take(codebook, indices).to(z.dtype) + (z - z.detach())
    return torch.where(usable, quantized, quantized.new_full((), math.nan)), indices, None, None


def _take(codebook: Tensor, indices: Tensor) -> Tensor:
    """The code at each index: codebook (K,) or (L, K), indices (...) or (..., L)."""
    every = codebook.expand(*indices.shape, codebook.shape[-1])
    return every.gather(-1, indices.unsqueeze(-1)).squeeze(-1)


def _zero_unless(usable: Tensor, values: Tensor) -> Tensor:
    """values with 0 where they cannot be used: no NaN then enters the arithmetic, forward or backward."""
    # A tensor, since torch.onnx of PyTorch before 2.11 takes no torch.where of a number.
    return torch.where(usable, values, values.new_zeros(()))
