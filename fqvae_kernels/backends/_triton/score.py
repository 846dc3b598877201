# mypy: ignore-errors
"""What forward and backward share: codes, logits and scores seen from a reference point, as tiles.

With a reference r near z, excess e = z - r and offset d = m - r, the logit of code m is
    -(z - m)^2 + (z - r)^2 = d (2 e - d),
the same as -(z - m)^2 but for a constant of the row, and it neither cancels nor overflows for the codes that
count. Given logits are seen from the row's largest, and offsets from the code that has it.
"""

from __future__ import annotations

import triton
import triton.language as tl

from fqvae_kernels.backends._triton.jit import settle_keys
from fqvae_kernels.backends._triton.noise import LOG2_E, exp2, log_exponential, minus_natural

# What is further away counts as this far: a weight of exactly 0 and no 0 times infinity.
LOWEST_LOGIT = tl.constexpr(-(2.0**80))
FAR_EXCESS = tl.constexpr(2.0**100)
# The largest code: three times as much is still finite.
FAR32 = tl.constexpr(1.1e38)
FAR64 = tl.constexpr(5e307)
# Below 2^-40 a temperature changes nothing any more.
LOWEST_TEMPERATURE = tl.constexpr(2.0**-40)

# How a temperature comes: as a number, or in memory as one of these types.
NUMBER = tl.constexpr(0)
FLOAT64 = tl.constexpr(1)
FLOAT32 = tl.constexpr(2)
FLOAT16 = tl.constexpr(3)
BFLOAT16 = tl.constexpr(4)

# Rows of the stats that a forward pass keeps.
ORIGIN = tl.constexpr(0)  # the reference r, or the code of the largest logit; NaN: the row is not usable
SECOND = tl.constexpr(1)  # the excess e, or the largest logit
MEAN_OFFSET = tl.constexpr(2)  # sum of w d
BEST = tl.constexpr(3)  # the largest score
LOG2_TOTAL = tl.constexpr(4)  # log2 w = (score - best) log2(e) / temperature - this
LOG2_PARTITION = tl.constexpr(5)  # log2 q = logit log2(e) - this
MEAN_LOGIT = tl.constexpr(6)  # sum of q logit


@triton.jit
def divide(a, b):
    """a / b, correctly rounded; for float32 the operator is not."""
    return a / b if b.dtype == tl.float64 else tl.div_rn(a, b)


@triton.jit
def inverse_temperature(value, address, type, COMPUTE: tl.constexpr):
    """1 / temperature, which is value, or lies at address as a number of that type: one program for all."""
    # tl.full: under the interpreter a number is no tensor yet.
    value = tl.full([], value, tl.float64)
    place = tl.full([], address, tl.int64)
    type = tl.full([], type, tl.int32)
    double = tl.load(place.to(tl.pointer_type(tl.float64)), mask=type == FLOAT64, other=value)
    single = tl.load(place.to(tl.pointer_type(tl.float32)), mask=type == FLOAT32, other=0.0)
    bits = tl.load(place.to(tl.pointer_type(tl.uint16)), mask=type >= FLOAT16, other=0)
    half = bits.to(tl.float16, bitcast=True).to(tl.float32)
    brain = (bits.to(tl.uint32) << 16).to(tl.float32, bitcast=True)
    narrow = tl.where(type == FLOAT32, single, tl.where(type == FLOAT16, half, brain))
    temperature = tl.where(type >= FLOAT32, narrow.to(COMPUTE), double.to(COMPUTE))
    temperature = tl.maximum(temperature, LOWEST_TEMPERATURE)
    return divide(1.0, temperature)


@triton.jit
def load_codes(pointer, number, codes):
    """Codes of the codebook at pointer, so that the offset between any two is finite.

    Beyond the last one, a code that is far from every other.
    """
    far: tl.constexpr = FAR64 if pointer.dtype.element_ty == tl.float64 else FAR32
    inside = number < codes
    code = tl.load(pointer + number, mask=inside, other=0.0)
    return tl.where(inside, tl.minimum(tl.maximum(code, -far), far), 2.0 * far)


@triton.jit
def distance_logit(offset, excess):
    """The logit seen from the reference point, in nats."""
    return tl.maximum(offset * (2.0 * excess - offset), LOWEST_LOGIT)


@triton.jit
def given_logit(logits, mask, usable, largest, COMPUTE: tl.constexpr):
    """Logits that the caller gave, less the row's largest; all equal in a row that is not usable."""
    x = tl.load(logits, mask=mask, other=-float("inf")).to(COMPUTE)
    logit = tl.where(usable, tl.maximum(x - largest, LOWEST_LOGIT), 0.0)
    return tl.where(mask, logit, LOWEST_LOGIT)


@triton.jit
def score(logit, word):
    """logit + Gumbel noise, but for a constant, in nats."""
    return minus_natural(log_exponential(word, logit.dtype), logit)


@triton.jit
def log2_weight(score, best, scale, log2_total):
    """log2 of the soft weight. The best score comes off first: low temperatures then lose nothing."""
    return tl.fma(score - best, scale, -log2_total)


@triton.jit
def soft_weight(score, best, scale, log2_total):
    """The soft weight, which does not exceed 1 by rounding."""
    return tl.minimum(exp2(log2_weight(score, best, scale, log2_total)), 1.0)


@triton.jit
def base_2(x):
    """Nats to bits."""
    return x * LOG2_E


settle_keys(globals())
