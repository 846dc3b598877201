"""Which factor a latent is named after, wherever a report or a figure names one: one rule."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

# What tells a factor with ten equally frequent values only in two halves carries ln 2 / ln 10 = 0.30 of it. A
# latent with less cannot even do that. What independent codes seem to carry is taken off before: 0.06 among
# 2,000 images with 10 values and 64 codes, and 1.03 among 120.
LEAST = 0.3
# The share of that factor is at least twice that of any other, so that one name says the most of the latent.
_LEAD = 2
NONE = "no single factor"
RULE = (
    f"A latent is named after a factor if it carries at least {LEAST:.0%} of the information in that factor, "
    "beyond what independent codes seem to carry, and at least twice the share that it carries of any other."
)


def named_factor(shares: ArrayLike) -> int | None:
    """The factor that a latent is named after, or None.

    Args:
        shares: (factors,), I(factor; latent) / H(factor) for each factor, in [0, 1], less what
            independent codes have; without factors empty.
    """
    column = np.asarray(shares, np.float64)
    if not column.size:
        return None
    first = int(column.argmax())
    second = np.delete(column, first).max(initial=0.0)
    return first if column[first] >= LEAST and column[first] >= _LEAD * second else None


def readable(name: str) -> str:
    """A factor's name without underscores."""
    return name.replace("_", " ")
