"""Binary floating-point formats with exact rational arithmetic: the truth for the tests of arithmetic."""

import math
from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class Format:
    """A format of IEEE 754's kind: `fraction` stored bits, `exponent` bits."""

    fraction: int
    exponent: int

    @property
    def width(self) -> int:
        return 1 + self.exponent + self.fraction

    @property
    def least(self) -> int:
        """The exponent of the smallest normal number."""
        return 2 - (1 << (self.exponent - 1))

    @property
    def infinity(self) -> int:
        return ((1 << self.exponent) - 1) << self.fraction

    def is_finite(self, bits: int) -> bool:
        return bits & self.infinity != self.infinity

    def value(self, bits: int) -> Fraction:
        """The number that finite bits mean."""
        field, fraction = (bits & self.infinity) >> self.fraction, bits & ((1 << self.fraction) - 1)
        units = fraction + ((1 << self.fraction) if field else 0)
        size = Fraction(units) * Fraction(2) ** (max(field, 1) - 1 + self.least - self.fraction)
        return -size if bits >> (self.width - 1) & 1 else size

    def rounded(self, x: Fraction, mode: str = "rn") -> int:
        """The bits of x in a rounding mode of PTX: rn (nearest even), rz, rm (down), rp (up)."""
        sign = 1 << (self.width - 1) if x < 0 else 0
        if x == 0:
            return 0
        size = abs(x)
        exponent = size.numerator.bit_length() - size.denominator.bit_length()
        exponent -= size < Fraction(2) ** exponent
        exponent = max(exponent, self.least)
        scaled = size / Fraction(2) ** (exponent - self.fraction)
        units = math.floor(scaled)
        rest = scaled - units
        away = mode == ("rm" if sign else "rp")
        if (mode == "rn" and (rest > Fraction(1, 2) or (rest == Fraction(1, 2) and units % 2))) or (
            away and rest
        ):
            units += 1
        bits = units + ((exponent - self.least) << self.fraction)
        if bits >= self.infinity:
            bits = self.infinity if mode == "rn" or away else self.infinity - 1
        return sign | bits


F16 = Format(10, 5)
BF16 = Format(7, 8)
F32 = Format(23, 8)
F64 = Format(52, 11)


def root(x: Fraction) -> Fraction:
    """The square root, or a number so close to it on the same side that it rounds alike."""
    scaled = x.numerator * x.denominator << 400
    found = math.isqrt(scaled)
    sticky = Fraction(0) if found * found == scaled else Fraction(1, 2)
    return (found + sticky) / (x.denominator << 200)
