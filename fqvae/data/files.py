"""What the sets that come in files have in common: where the file is, what it must hold, how it is read."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fqvae.data.conversion import convert, load
from fqvae.data.factors import FactorGrid, IntArray


class FileDataset(FactorGrid, ABC):
    """Images that are converted once into a memory-mapped array; after that, a batch is one gather.

    The array is written beside the original as NAME.images.npy, uint8 (images, 3, 64, 64), with a progress
    bar. When it is there the original is no longer needed. The set is never in memory as a whole.

    Args:
        root: the original, or the folder that it lies in.
        cache: folder for the array, made if need be, when it shall not lie beside the original.

    Raises:
        FileNotFoundError: neither the original nor a converted array.
        ValueError: the original or the array is not what it should be; the message says what was found.
        OSError: no space, no permission to write.
        ModuleNotFoundError: a package that the conversion needs is not installed.
    """

    original: str  # the name that the file has where it is published
    image_shape = (3, 64, 64)

    def __init__(self, root: str | Path, *, cache: str | Path | None = None) -> None:
        root = Path(root)
        self.root = root
        folder = root if root.is_dir() else root.parent
        stem = Path(self.original if root.is_dir() else root).stem
        self.path = (folder if cache is None else Path(cache)) / f"{stem}.images.npy"
        if not self.path.exists():
            with self._open() as batches:
                convert(self.path, (len(self), *self.image_shape), batches)
        self._images = load(self.path, (len(self), *self.image_shape))

    def images(self, index: IntArray) -> Tensor:
        """Read.

        Args:
            index: (batch,) of integers.

        Returns:
            uint8 (batch, 3, 64, 64), on the CPU.

        Raises:
            TypeError, ValueError, IndexError: as factors.
        """
        return torch.from_numpy(self._images.take(self.check_index(index), axis=0))

    def __getstate__(self) -> dict[str, Any]:
        # A copy, in another process as well, maps the same file.
        return {key: value for key, value in self.__dict__.items() if key != "_images"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._images = load(self.path, (len(self), *self.image_shape))

    @abstractmethod
    def _open(self) -> AbstractContextManager[Iterator[NDArray[np.uint8]]]:
        """Open the original, check it, and give its images in order: uint8 (some, 3, 64, 64) at a time."""

    def _source(self) -> Path:
        """The original file, which must exist."""
        path = self.root / self.original if self.root.is_dir() else self.root
        if not path.exists():
            raise FileNotFoundError(
                f"{self.name}: there is no {path}; root must be {self.original} or the folder that it lies in"
            )
        return path

    def _check_images(self, path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        wanted = (len(self), 64, 64, 3)
        if shape != wanted or dtype != np.uint8:
            raise ValueError(f"{path}: images must be uint8 {wanted}, but are {dtype} {shape}")

    def _check_labels(self, path: Path, labels: NDArray[Any]) -> None:
        """Images with the same value of a factor must have the same label, and others another: then they are
        in the order that this class takes them to be in. Rounding may blur a label.
        """
        wanted = (len(self), len(self.factor_sizes))
        if labels.shape != wanted or not np.issubdtype(labels.dtype, np.number):
            raise ValueError(
                f"{path}: labels must be numbers {wanted}, but are {labels.dtype} {labels.shape}"
            )
        for j, (name, size) in enumerate(zip(self.factor_names, self.factor_sizes, strict=True)):
            column = labels[:, j].astype(np.float64)
            step = math.prod(self.factor_sizes[j + 1 :])
            first = np.arange(len(self)) // step % size * step  # same value of j, all other factors 0
            levels = column[: size * step : step]
            gap = np.diff(np.sort(levels)).min(initial=np.inf)
            if not gap > 0:
                raise ValueError(f"{path}: labels of {name} must be {size} different ones, but are {levels}")
            wrong = ~(np.abs(column - column[first]) <= 0.01 * gap)  # NaN is wrong
            if wrong.any():
                k = int(wrong.argmax())
                raise ValueError(
                    f"{path}: images must be ordered by {', '.join(self.factor_names)} (sizes "
                    f"{self.factor_sizes}, the last factor fastest), but numbers {first[k]} and {k}, which "
                    f"should have the same {name}, have labels {column[first[k]]} and {column[k]}"
                )


def to_planes(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(batch, height, width, 3) to (batch, 3, height, width), contiguous."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))
