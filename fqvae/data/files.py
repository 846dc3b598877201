"""What the published sets that come in files have in common: where the file is, and what it must hold."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fqvae.data.converted import ConvertedImages, file_identity, full_path, path_key
from fqvae.data.factors import FactorGrid


class FileDataset(ConvertedImages, FactorGrid):
    """Images that are converted once into a memory-mapped array; after that, a batch is one gather.

    The array is written beside the original as NAME.images.npy, uint8 (images, 3, 64, 64), with a progress
    bar. When it is there the original is no longer needed. If the original has changed since, it is converted
    anew. The set is never in memory as a whole.

    Args:
        root: the original, or the folder that it lies in; ~ is expanded.
        cache: folder for the array, made if need be, when it shall not lie beside the original. Originals of
            one name have arrays of their own there.

    Raises:
        FileNotFoundError: neither the original nor a converted array.
        ValueError: the original or the array is not what it should be; the message says what was found.
        OSError: no space, no permission to write.
        ModuleNotFoundError: a package that the conversion needs is not installed.
    """

    original: str  # the name that the file has where it is published
    image_shape = (3, 64, 64)

    def __init__(self, root: str | Path, *, cache: str | Path | None = None) -> None:
        root = full_path(root)
        self.root, self.cache = root, None if cache is None else full_path(cache)
        if self.cache is not None:
            # The same one whether or not the original, or its folder, is still there.
            home = root.parent if root.name == self.original else root
            path = self.cache / f"{self.name}-{path_key(home)}.images.npy"
        elif root.is_dir():
            path = root / f"{Path(self.original).stem}.images.npy"
        else:
            path = root.parent / f"{root.stem}.images.npy"
        self._start(path)

    def reopen(self) -> dict[str, Any]:
        """The keys of `DataConfig` that open this set again."""
        cache = None if self.cache is None else str(self.cache)
        return {"name": self.name, "root": str(self.root), "cache": cache}

    def _wanted(self) -> tuple[int, int, int, int]:
        return (len(self), *self.image_shape)

    def _identity(self) -> dict[str, Any] | None:
        return file_identity(self._original())

    def _original(self) -> Path:
        """Where the original should be."""
        return self.root / self.original if self.root.is_dir() else self.root

    def _existing(self) -> Path:
        """The original, which must exist."""
        path = self._original()
        if not path.exists():
            raise FileNotFoundError(
                f"{self.name}: there is no {path}; root must be {self.original} or the folder that it lies in"
            )
        return path

    def _check_images(self, path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        wanted = (len(self), 64, 64, 3)
        if shape != wanted or dtype != np.uint8:
            raise ValueError(f"{path}: images must be uint8 {wanted}, but are {dtype} {shape}")

    def _check_label_shape(self, path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        """Raise ValueError unless labels have this shape and dtype; to be asked before they are read."""
        wanted = (len(self), len(self.factor_sizes))
        if shape != wanted or not np.issubdtype(dtype, np.number):
            raise ValueError(f"{path}: labels must be numbers {wanted}, but are {dtype} {shape}")

    def _check_labels(self, path: Path, labels: NDArray[Any]) -> None:
        """Images with the same value of a factor must have the same label, and others another: then they are
        in the order that this class takes them to be in. Rounding may blur a label.
        """
        self._check_label_shape(path, labels.shape, labels.dtype)
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
