"""Shapes3D (Burgess and Kim, 2018): 3dshapes.h5."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fqvae.data.conversion import optional
from fqvae.data.files import FileDataset, to_planes

BATCH = 1024


class Shapes3D(FileDataset):
    """480,000 images of a room with a coloured object.

    The file holds images, uint8 (480000, 64, 64, 3), and labels, floating point (480000, 6), whose order is
    checked. Arguments and errors: `FileDataset`.
    """

    name = "shapes3d"
    original = "3dshapes.h5"
    factor_names = ("floor_hue", "wall_hue", "object_hue", "scale", "shape", "orientation")
    factor_sizes = (10, 10, 10, 8, 4, 15)

    @contextmanager
    def _open(self) -> Iterator[Iterator[NDArray[np.uint8]]]:
        path = self._source()
        h5py = optional("h5py", f"reading {path.name}")
        try:
            file = h5py.File(path, "r")
        except OSError as error:
            raise ValueError(f"{path} is not an HDF5 file, or is cut short ({error})") from error
        with file:
            for key in ("images", "labels"):
                if not isinstance(file.get(key), h5py.Dataset):
                    raise ValueError(f"{path}: must hold images and labels, but holds {sorted(file)}")
            self._check_images(path, file["images"].shape, file["images"].dtype)
            self._check_labels(path, _read(path, file["labels"], slice(None)))
            yield self._batches(path, file["images"])

    def _batches(self, path: Path, images: Any) -> Iterator[NDArray[np.uint8]]:
        for start in range(0, len(self), BATCH):
            yield to_planes(_read(path, images, slice(start, start + BATCH)))


def _read(path: Path, dataset: Any, part: slice) -> NDArray[Any]:
    try:
        array: NDArray[Any] = dataset[part]
    except OSError as error:
        raise ValueError(f"{path} is damaged: {dataset.name} cannot be read ({error})") from error
    return array
