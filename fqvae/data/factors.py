"""Image sets with known factors of variation: the face they share, and the order of their images."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, TypeAlias, TypeGuard

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

IntArray: TypeAlias = NDArray[np.int64] | Tensor


class ImageDataset(Protocol):
    """Numbered images, with the values of their factors of variation where these are known.

    A set that later commands shall open again, from a run that was trained on it, also has a method `reopen`,
    which gives the keys of `DataConfig` that open it, {"name": "package.module:function", "root": "a.npz"},
    say; see `fqvae.data.opener`. Sets that `open_dataset` knows by name have it.

    Attributes:
        name: as `open_dataset` knows it.
        factor_names, factor_sizes: of the factors, and how many values each has; both empty without labels.
        image_shape: (channels, height, width).
    """

    @property
    def name(self) -> str: ...

    @property
    def factor_names(self) -> tuple[str, ...]: ...

    @property
    def factor_sizes(self) -> tuple[int, ...]: ...

    @property
    def image_shape(self) -> tuple[int, int, int]: ...

    def __len__(self) -> int:
        """The number of images."""

    def images(self, index: IntArray) -> Tensor:
        """The images of these numbers, (batch,) of integers: uint8 (batch, channels, height, width)."""

    def factors(self, index: IntArray) -> Tensor:
        """The factors of these images, (batch,) of integers: int64 (batch, factors)."""


class FactorDataset(ImageDataset, Protocol):
    """One image for every combination of the factors' values.

    The sets that this package knows by name have them in mixed radix, the last factor fastest.
    """

    def index(self, factors: IntArray) -> Tensor:
        """The inverse of factors: (batch, factors) of integers to int64 (batch,)."""


def has_full_grid(dataset: ImageDataset) -> TypeGuard[FactorDataset]:
    """Whether the set is a `FactorDataset`: it has an image for every combination of the factors' values."""
    return hasattr(dataset, "index")


class FactorGrid:
    """The order of a set's images: all of a FactorDataset but the images."""

    name: str
    factor_names: tuple[str, ...]
    factor_sizes: tuple[int, ...]

    def __len__(self) -> int:
        return math.prod(self.factor_sizes)

    def factors(self, index: IntArray) -> Tensor:
        """Args:
            index: (batch,) of integers.

        Returns:
            int64 (batch, factors), on the CPU.

        Raises:
            TypeError, ValueError, IndexError: not integers; another shape; a number out of range.
        """
        numbers = self.check_index(index)
        return torch.from_numpy(np.stack(np.unravel_index(numbers, self.factor_sizes), 1).astype(np.int64))

    def index(self, factors: IntArray) -> Tensor:
        """Args:
            factors: (batch, factors) of integers.

        Returns:
            int64 (batch,), on the CPU.

        Raises:
            TypeError, ValueError, IndexError: not integers; another shape; a value out of range.
        """
        return torch.from_numpy(grid_place(self.factor_names, self.factor_sizes, factors))

    def check_index(self, index: IntArray) -> NDArray[np.int64]:
        """The index as an array (batch,) of images that exist; errors as factors raises them."""
        return check_index(self.name, len(self), index)


def check_index(name: str, length: int, index: IntArray) -> NDArray[np.int64]:
    """The index as an array (batch,) of images of the set of this name and length.

    Raises TypeError, ValueError, IndexError: not integers; another shape; a number out of range.
    """
    numbers = _integers("index", index)
    if numbers.ndim != 1:
        raise ValueError(f"index must be of shape (batch,), but was {numbers.shape}")
    wrong = numbers[(numbers < 0) | (numbers >= length)]
    if wrong.size:
        raise IndexError(
            f"index must be at least 0 and below {length}, the size of {name}, but was {wrong[0]}"
        )
    return numbers


def grid_place(names: Sequence[str], sizes: tuple[int, ...], factors: IntArray) -> NDArray[np.int64]:
    """The place of each combination, (batch, factors), in mixed radix, the last factor fastest: (batch,).

    Raises TypeError, ValueError, IndexError: not integers; another shape; a value out of range.
    """
    values = _integers("factors", factors)
    if values.ndim != 2 or values.shape[1] != len(sizes):
        raise ValueError(f"factors must be of shape (batch, {len(sizes)}), but was {values.shape}")
    for name, size, column in zip(names, sizes, values.T, strict=True):
        wrong = column[(column < 0) | (column >= size)]
        if wrong.size:
            raise IndexError(f"factors: {name} must be at least 0 and below {size}, but was {wrong[0]}")
    places: NDArray[np.int64] = np.ravel_multi_index(tuple(values.T), sizes).astype(np.int64)
    return places


def nearest(word: str, known: Iterable[str]) -> str:
    """The known word that is most like this one."""
    return difflib.get_close_matches(word, list(known), n=1, cutoff=0.0)[0]


def _integers(name: str, value: Any) -> NDArray[np.int64]:
    array = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
    if not np.issubdtype(array.dtype, np.integer):
        raise TypeError(f"{name} must hold integers, but was of {array.dtype}")
    return array.astype(np.int64, copy=False)
