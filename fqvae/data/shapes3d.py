"""Shapes3D (Burgess and Kim, 2018): 3dshapes.h5."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fqvae.data.archive import reason
from fqvae.data.conversion import optional
from fqvae.data.converted import Content
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
    def _open(self) -> Iterator[Content]:
        path = self._existing()
        h5py = optional("h5py", f"reading {path.name}")
        try:
            file = h5py.File(path, "r")
        except FileNotFoundError:
            raise
        except Exception as error:  # of many types, by where the damage is
            raise ValueError(f"{path} is not an HDF5 file, or is cut short ({reason(error)})") from error
        with file:
            images, labels = (_dataset(path, file, key, h5py) for key in ("images", "labels"))
            self._check_images(path, images.shape, images.dtype)
            self._check_label_shape(path, labels.shape, labels.dtype)
            self._check_labels(path, _read(path, labels, slice(None)))
            yield Content(self._wanted(), self._batches(path, images), {})

    def _batches(self, path: Path, images: Any) -> Iterator[NDArray[np.uint8]]:
        for start in range(0, len(self), BATCH):
            yield to_planes(_read(path, images, slice(start, start + BATCH)))


def _dataset(path: Path, file: Any, key: str, h5py: Any) -> Any:
    """A dataset whose data lie in the file itself. Raises ValueError for everything else."""
    try:
        link = file.get(key, getlink=True)
        found: Any = file[key] if isinstance(link, h5py.HardLink) else None
        is_dataset = isinstance(found, h5py.Dataset)
        elsewhere = is_dataset and (found.external is not None or found.is_virtual)
        names = sorted(file)
    except Exception as error:  # of many types, by where the damage is
        raise ValueError(f"{path} is damaged: {key} cannot be read ({reason(error)})") from error
    if link is not None and not isinstance(link, h5py.HardLink):
        raise ValueError(f"{path}: {key} must lie in the file itself, but is a link to another place")
    if elsewhere:
        raise ValueError(f"{path}: {key} must lie in the file itself, but its data lie in other files")
    if not is_dataset:
        raise ValueError(f"{path}: must hold images and labels, but holds {names[:10]}")
    return found


def _read(path: Path, dataset: Any, part: slice) -> NDArray[Any]:
    try:
        array: NDArray[Any] = dataset[part]
    except Exception as error:  # of many types, by where the damage is
        raise ValueError(f"{path} is damaged: {dataset.name} cannot be read ({reason(error)})") from error
    return array
