"""Anybody's images, from a file or a folder: what these sets have in common."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fqvae.data.converted import ConvertedImages, full_path, path_key
from fqvae.data.factors import IntArray, check_index, grid_place
from fqvae.data.labels import Labels, no_labels


class OwnImages(ConvertedImages):
    """Square images with 1 or 3 channels; their factors are known, or not.

    They are converted once into an array NAME.images.npy beside the original, as for `FileDataset`. Every
    different label is one value of its factor, numbered in order. If each combination of values has exactly
    one image, the set has `index` as well, and is a `FactorDataset`.

    factor_values: of each factor, what its numbers stand for.

    Args:
        root: the original; ~ is expanded.
        size: height and width; 0: as the images are.
        channels: 1 or 3; 0: as the images are.
        resize: resize the images to `size` (bicubic, antialiased), which stretches those that are not square.
        cache: folder for the array, made if need be, when it shall not lie beside the original.

    Raises:
        FileNotFoundError: neither the original nor a converted array.
        ValueError: images of another size or number of channels, or of several; labels that do not fit the
            images; a damaged file. The message says what was found.
        OSError: no space, no permission to write.
        ModuleNotFoundError: a package that the conversion needs is not installed.
    """

    factor_names: tuple[str, ...]
    factor_sizes: tuple[int, ...]
    factor_values: tuple[tuple[str, ...], ...]

    def __init__(
        self,
        root: str | Path,
        *,
        size: int = 0,
        channels: int = 0,
        resize: bool = False,
        cache: str | Path | None = None,
    ) -> None:
        if channels not in (0, 1, 3):
            raise ValueError(f"channels must be 1 or 3, or 0 for those of the images, but was {channels}")
        if size < resize:
            raise ValueError(f"size must be at least {int(resize)}, but was {size}")
        self.root, self.cache = full_path(root), None if cache is None else full_path(cache)
        self.size, self.channels, self.resize = size, channels, resize
        key = "" if self.cache is None else f"-{path_key(self.root)}"
        end = f".{size}.images.npy" if resize else ".images.npy"
        self._start((self.cache or self.root.parent) / f"{self.root.name}{key}{end}")

    def __len__(self) -> int:
        return len(self._images)

    def factors(self, index: IntArray) -> Tensor:
        """Args:
            index: (batch,) of integers.

        Returns:
            int64 (batch, factors), on the CPU; no columns for a set without labels.

        Raises:
            TypeError, ValueError, IndexError: not integers; another shape; a number out of range.
        """
        return torch.from_numpy(self._codes[check_index(self.name, len(self), index)])

    def reopen(self) -> dict[str, Any]:
        """The keys of `DataConfig` that open this set again."""
        cache = None if self.cache is None else str(self.cache)
        return {"name": self.name, "root": str(self.root), "cache": cache, "resize": self.resize}

    def __getstate__(self) -> dict[str, Any]:
        left_out = ("_codes", "_places", "index")
        return {key: value for key, value in super().__getstate__().items() if key not in left_out}

    def _check_shape(self, where: str, shape: tuple[int, int, int]) -> None:
        """Raise ValueError unless images of this shape, (channels, height, width), are what was asked for."""
        channels, height, width = shape
        what = f"{where}: images are {width} pixels wide and {height} high"
        if self.channels not in (0, channels):
            raise ValueError(
                f"{where}: images have {channels} channel(s), but data.channels is {self.channels}; "
                "leave it out"
            )
        if self.resize:
            return
        if self.size and (height, width) != (self.size, self.size):
            raise ValueError(
                f"{what}, but data.size is {self.size}; leave it out, or have them resized: data.resize=true"
            )
        if height != width:
            raise ValueError(
                f"{what}, but must be square; have them resized: data.resize=true data.size=SIZE"
            )

    def _final(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """The shape of the images once they are resized, if they are."""
        return (shape[0], self.size, self.size) if self.resize else shape

    def _take(self, images: NDArray[np.uint8], note: dict[str, Any]) -> None:
        super()._take(images, note)
        _, channels, height, width = images.shape
        self._check_shape(str(self.path), (channels, height, width))
        self.image_shape = channels, height, width
        try:
            plain = note.get("labels")
            labels = no_labels(len(images)) if plain is None else Labels.from_plain(plain, len(images))
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}; delete it to have it converted again") from error
        self.factor_names, self.factor_sizes = labels.names, labels.sizes
        self.factor_values, self._codes = labels.values, labels.codes
        if labels.names and math.prod(labels.sizes) == len(images):
            places = grid_place(labels.names, labels.sizes, labels.codes)
            if len(np.unique(places)) == len(images):
                self._places = np.argsort(places)
                self.index = self._index  # only such a set has it: see has_full_grid

    def _index(self, factors: IntArray) -> Tensor:
        """The image with each combination of values: (batch, factors) to int64 (batch,)."""
        return torch.from_numpy(self._places[grid_place(self.factor_names, self.factor_sizes, factors)])
