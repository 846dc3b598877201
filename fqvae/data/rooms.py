"""RayShapes with some values of some factors: rooms of few hues, say, or seen from one side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from fqvae.data.factors import FactorGrid, IntArray, nearest
from fqvae.data.opener import opener
from fqvae.data.rayshapes import RayShapes


class Rooms(FactorGrid):
    """The images of `RayShapes` whose factors have these values, in the same order.

    A factor's values are numbered anew, from 0. A factor with a single value is none of this set's.

    Args:
        size: as for `RayShapes`.
        values: {factor: its values}, increasing numbers of `RayShapes`; factors that are not named have all.

    Raises:
        ValueError: a size that is not allowed, an unknown factor, values that are none of it or do not
            increase, or a single one for every factor.
    """

    name = "fqvae.data.rooms:some_rooms"

    def __init__(self, size: int = 64, values: Mapping[str, Sequence[int]] | None = None) -> None:
        self._all = RayShapes(size)
        self.size, self.image_shape = size, self._all.image_shape
        self._given = {name: list(each) for name, each in (values or {}).items()}
        for name in self._given:
            if name not in self._all.factor_names:
                known = self._all.factor_names
                raise ValueError(
                    f"values: there is no factor {name!r}; did you mean {nearest(name, known)!r}?"
                )
        kept = []
        for name, count in zip(self._all.factor_names, self._all.factor_sizes, strict=True):
            own = self._given.get(name, list(range(count)))
            if not own or own != sorted(set(own) & set(range(count))):
                raise ValueError(
                    f"values: those of {name} must be increasing and from 0 to {count - 1}, but were {own}"
                )
            kept.append(np.array(own, dtype=np.int64))
        self._values = kept
        self._varied = [place for place, own in enumerate(kept) if len(own) > 1]
        if not self._varied:
            raise ValueError("values must leave a factor with at least two values, but left none")
        self.factor_names = tuple(self._all.factor_names[place] for place in self._varied)
        self.factor_sizes = tuple(len(kept[place]) for place in self._varied)

    def reopen(self) -> dict[str, Any]:
        """The keys of `DataConfig` that open this set again."""
        return {"name": self.name, "arguments": {"size": self.size, **self._given}}

    def images(self, index: IntArray) -> Tensor:
        """As `RayShapes.images`: uint8 (batch, 3, size, size)."""
        own = self.factors(index).numpy()
        factors = np.array([each[0] for each in self._values])[None].repeat(len(own), 0)
        for column, place in enumerate(self._varied):
            factors[:, place] = self._values[place][own[:, column]]
        return self._all.images(self._all.index(factors))


@opener
def some_rooms(root: str | None = None, *, size: int = 64, **values: Sequence[int]) -> Rooms:
    """`Rooms`, for a configuration: data.name=fqvae.data.rooms:some_rooms.

    data.arguments='{"size": 32, "orientation": [7]}' has the rooms seen from one side. root: not used.
    """
    return Rooms(size, values)
