"""Factors that depend on each other, for training sets that are not what they will be tested on."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from fqvae.data.factors import FactorGrid, nearest


class Correlation:
    """Pairs of factors, one tied to the other with a given strength.

    With factor b of size B tied to factor a of size A, at strength s in [0, 1]:

        p(b | a) = (1 - s)/B + s [b = t(a)],    t(a) = floor(a B / A)

    that is, b takes a's value with probability s and any value of its own otherwise (t(a) = a where the sizes
    are equal). All factors that are tied to none are uniform and independent. s = 0: no correlation; s = 1:
    b follows from a.

    Args:
        grid: the set.
        pairs: {b: a}, names of factors. No factor may both be tied and have others tied to it.
        strength: s.

    Raises:
        ValueError: an unknown name, a factor on both sides, a strength outside [0, 1].
    """

    def __init__(self, grid: FactorGrid, pairs: Mapping[str, str], strength: float) -> None:
        names = grid.factor_names
        for name in (*pairs.keys(), *pairs.values()):
            if name not in names:
                raise ValueError(
                    f"correlated: {grid.name} has no factor {name!r}; did you mean {nearest(name, names)!r}?"
                )
        both = sorted(pairs.keys() & set(pairs.values()))
        if both:
            raise ValueError(
                f"correlated: {both[0]} is tied to a factor and has a factor tied to it; only one is allowed"
            )
        if not 0 <= strength <= 1:
            raise ValueError(f"strength must be between 0 and 1, but was {strength}")
        self.grid = grid
        self.pairs = dict(pairs)
        self.strength = strength

    def acceptance(self, index: NDArray[np.int64]) -> NDArray[np.float64]:
        """Probabilities that turn uniform draws into correlated ones, if each image is kept with its own.

        An image's is its p(b | a) relative to the largest, the product of that over the pairs.

        Args:
            index: int64 (batch,).

        Returns:
            float64 (batch,), at most 1.
        """
        factors = self.grid.factors(index).numpy()
        accepted = np.ones(len(factors))
        for tied, leading in self.pairs.items():
            b, a = self.grid.factor_names.index(tied), self.grid.factor_names.index(leading)
            size = self.grid.factor_sizes[b]
            follows = factors[:, b] == factors[:, a] * size // self.grid.factor_sizes[a]
            free = (1 - self.strength) / size
            accepted *= np.where(follows, 1.0, free / (free + self.strength))
        return accepted
