"""Anybody's images in an npz file."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fqvae.data.archive import (
    Header,
    image_rows,
    open_member,
    open_zip,
    read_array,
    read_header,
)
from fqvae.data.conversion import optional
from fqvae.data.converted import Content, file_identity
from fqvae.data.labels import Labels, check_labels, code_labels
from fqvae.data.own import OwnImages
from fqvae.data.pixels import to_array

_IMAGES, _FACTORS, _NAMES = "images.npy", "factors.npy", "factor_names.npy"


class ArrayImages(OwnImages):
    """The images of an npz file: what `numpy.savez` or `numpy.savez_compressed` writes.

    It holds `images`, uint8 (N, H, W), (N, H, W, C) or (N, C, H, W) with C of 1 or 3; where it knows the
    factors, `factors` (N,) or (N, F), numbers or texts; and, if they have names, `factor_names` (F,). It is
    read as a stream: it may be larger than the memory. Arguments and errors: `OwnImages`.
    """

    name = "arrays"

    def _identity(self) -> dict[str, Any] | None:
        return file_identity(self.root)

    @contextmanager
    def _open(self) -> Iterator[Content]:
        path = self.root
        if not path.is_file():
            raise FileNotFoundError(
                f"arrays: there is no file {path}; root must be an npz file with images, "
                "and factors if they are known"
            )
        with open_zip(path, "npz") as archive:
            members = archive.namelist()
            if _IMAGES not in members:
                found = [name.removesuffix(".npy") for name in members[:10]]
                raise ValueError(f"{path}: must hold images, but holds {found}")
            with open_member(path, archive, _IMAGES) as stream:
                header = read_header(path, _IMAGES, stream)
                channels_last, shape = self._layout(header)
                self._check_length(archive, header)
                self._check_shape(str(path), shape)
                count = header.shape[0]
                labels = self._labels(archive, count) if _FACTORS in members else None
                planes = (
                    _to_planes(each, channels_last) for each in image_rows(path, _IMAGES, stream, header)
                )
                about = {} if labels is None else {"labels": labels.to_plain()}
                yield Content((count, *self._final(shape)), map(self._resized, planes), about)

    def _layout(self, header: Header) -> tuple[bool, tuple[int, int, int]]:
        """Whether the channels come last, and (channels, height, width)."""
        where, shape = f"{self.root}: images", header.shape
        if header.dtype != np.uint8:
            raise ValueError(f"{where} must be uint8, 0 to 255, but are {header}")
        if len(shape) == 3:
            shape = (*shape, 1)
        if len(shape) != 4 or (shape[3] not in (1, 3) and shape[1] not in (1, 3)):
            raise ValueError(
                f"{where} must be of shape (N, H, W), (N, H, W, C) or (N, C, H, W), C 1 or 3, "
                f"but are {header}"
            )
        if 0 in shape:
            raise ValueError(f"{where} must not be empty, but are {header}")
        if header.fortran:
            raise ValueError(
                f"{where} must be stored in C order, but are in Fortran order; numpy.ascontiguousarray "
                "changes it"
            )
        if shape[3] in (1, 3):
            return True, (shape[3], shape[1], shape[2])
        return False, (shape[1], shape[2], shape[3])

    def _check_length(self, archive: zipfile.ZipFile, header: Header) -> None:
        there = archive.getinfo(_IMAGES).file_size
        if there < header.size:
            raise ValueError(
                f"{self.root} is cut short: images are {header}, {header.size} bytes, but there are {there}"
            )

    def _labels(self, archive: zipfile.ZipFile, count: int) -> Labels:
        where, path = f"{self.root}: factors", self.root
        with open_member(path, archive, _FACTORS) as stream:
            header = read_header(path, _FACTORS, stream)
            check_labels(where, header.shape, header.dtype, count)
            table = read_array(path, _FACTORS, stream, header).reshape(count, -1)
        columns = table.shape[1]
        names = ["label"] if columns == 1 else [f"factor_{number}" for number in range(columns)]
        if _NAMES in archive.namelist():
            with open_member(path, archive, _NAMES) as stream:
                header = read_header(path, _NAMES, stream)
                if header.shape != (columns,) or header.dtype.kind != "U":
                    raise ValueError(f"{path}: factor_names must be texts ({columns},), but are {header}")
                names = read_array(path, _NAMES, stream, header).tolist()
        return code_labels(where, list(table.T), names)

    def _resized(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(some, channels, height, width), resized if that was asked for."""
        if not self.resize:
            return images
        image = optional("PIL.Image", "resizing images")
        channels, size = images.shape[1], (self.size, self.size)
        pictures = (image.fromarray(each[0] if channels == 1 else each.transpose(1, 2, 0)) for each in images)
        return np.stack([to_array(each, channels, size) for each in pictures])


def _to_planes(images: NDArray[np.uint8], channels_last: bool) -> NDArray[np.uint8]:
    """(some, channels, height, width), contiguous."""
    if images.ndim == 3:
        images = images[..., None]
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2) if channels_last else images)
