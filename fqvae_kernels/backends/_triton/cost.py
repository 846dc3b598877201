# mypy: ignore-errors
"""What forward and backward share: codes, logits, costs and weights seen from a reference point, as tiles.

With a reference r near z, excess e = z - r and offset d = m - r, the logit of code m is
    -(z - m)^2 + (z - r)^2 = d (2 e - d),
the same as -(z - m)^2 but for a constant of the row, and it neither cancels nor overflows for the codes that
count. Given logits are seen from the row's largest, and offsets from the code that has it.

The logit of a masked code, of the padding beyond the last code, and of a code that is too far away is -inf:
its weight is exactly 0 at every temperature. What a weight multiplies is finite (`bounded`), since 0 times
infinity is NaN.
"""

from __future__ import annotations

import triton
import triton.language as tl

from fqvae_kernels.backends._triton.jit import settle_keys
from fqvae_kernels.backends._triton.noise import LN2, LOG2_E, exp2, log_exponential

# Stands for minus infinity where a weight multiplies it.
LOWEST = tl.constexpr(-(2.0**100))
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

# Rows of the stats that a forward pass keeps; `stats_rows` in backends/triton.py tells how many. The weights
# w are the softmax that has the temperature: of costs with noise (gumbel), or without (p of the others). The
# backward kernel loads them in this order: in another one, the addresses cost it 32 registers.
REFERENCE = tl.constexpr(0)  # r, or the code of the largest logit; NaN: the row is not usable
EXCESS = tl.constexpr(1)  # e, or the largest logit
MEAN_OFFSET = tl.constexpr(2)  # sum of w d
LOWEST_COST = tl.constexpr(3)
LOG2_TOTAL = tl.constexpr(4)  # log2 w = (lowest cost - cost) log2(e) / temperature - this
LOG2_PARTITION = tl.constexpr(5)  # log2 q = logit log2(e) - this; where kl is wanted, and of reinmax
MEAN_LOGIT = tl.constexpr(6)  # sum of q logit; where kl is wanted
POSTERIOR_OFFSET = tl.constexpr(7)  # sum of q d; of reinmax


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
def is_finite(x):
    """Whether each number is neither NaN nor infinite."""
    return tl.abs(x) < float("inf")


@triton.jit
def clamp_code(code):
    """A code of which three times as much is finite, NaN or not: minimum and maximum leave NaN out."""
    far: tl.constexpr = FAR64 if code.dtype == tl.float64 else FAR32
    return tl.minimum(tl.maximum(code, -far), far)


@triton.jit
def load_codes(pointer, number, codes):
    """Codes of the codebook at pointer, so that the offset between any two is finite.

    Beyond the last one, a code that is far from every other.
    """
    beyond: tl.constexpr = 2.0 * (FAR64 if pointer.dtype.element_ty == tl.float64 else FAR32)
    inside = number < codes
    code = tl.load(pointer + number, mask=inside, other=0.0)
    return tl.where(inside, clamp_code(code), beyond)


@triton.jit
def distance_logit(offset, excess):
    """The logit seen from the reference point, in nats."""
    return offset * (2.0 * excess - offset)


@triton.jit
def given_logit(logits, mask, usable, largest, COMPUTE: tl.constexpr):
    """Logits that the caller gave, less the row's largest; all equal in a row that is not usable."""
    x = tl.load(logits, mask=mask, other=-float("inf")).to(COMPUTE)
    return tl.where(mask, tl.where(usable, x - largest, 0.0), -float("inf"))


@triton.jit
def bounded(x):
    """A logarithm as a factor of a weight: finite."""
    return tl.maximum(x, LOWEST)


@triton.jit
def cost(logit, word):
    """Minus (logit + Gumbel noise), but for a constant, in nats."""
    # tl.full: to tl.fma of Triton 3.8 a number by itself is a float32.
    return tl.fma(log_exponential(word, logit.dtype), tl.full([], LN2, logit.dtype), -logit)


@triton.jit
def log2_weight(cost, lowest, scale, log2_total):
    """log2 of the weight. The cost comes off the lowest first: low temperatures then lose nothing."""
    return tl.fma(lowest - cost, scale, -log2_total)


@triton.jit
def weight_of(log2_w):
    """The weight, which does not exceed 1 by rounding."""
    return tl.minimum(exp2(log2_w), 1.0)


@triton.jit
def base_2(x):
    """Nats to bits."""
    return x * LOG2_E


settle_keys(globals())
