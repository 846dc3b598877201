"""MPI3D-Complex (Gondal et al., NeurIPS 2019): real3d_complicated_shapes_ordered.npz."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from fqvae.data.files import FileDataset, to_planes

BATCH = 1024
MEMBER = "images.npy"


class MPI3DComplex(FileDataset):
    """460,800 photographs of a robot arm that holds everyday objects.

    The file holds images, uint8 (460800, 64, 64, 3), and no labels. It is read as a stream, since NumPy would
    load all of it. Arguments and errors: `FileDataset`.
    """

    name = "mpi3d_complex"
    original = "real3d_complicated_shapes_ordered.npz"
    factor_names = ("colour", "shape", "size", "camera_height", "background", "horizontal", "vertical")
    factor_sizes = (4, 4, 2, 3, 3, 40, 40)

    @contextmanager
    def _open(self) -> Iterator[Iterator[NDArray[np.uint8]]]:
        path = self._source()
        try:
            archive = zipfile.ZipFile(path)
        except zipfile.BadZipFile as error:
            raise ValueError(f"{path} is not an npz file, or is cut short ({error})") from error
        with archive:
            if MEMBER not in archive.namelist():
                found = [name.removesuffix(".npy") for name in archive.namelist()]
                raise ValueError(f"{path}: must hold images, but holds {found[:10]}")
            with archive.open(MEMBER) as stream:
                shape, fortran, dtype = _header(path, stream)
                self._check_images(path, shape, dtype)
                if fortran:
                    raise ValueError(f"{path}: images must be stored in C order, but are in Fortran order")
                yield self._batches(path, stream)

    def _batches(self, path: Path, stream: IO[bytes]) -> Iterator[NDArray[np.uint8]]:
        size = 64 * 64 * 3
        for start in range(0, len(self), BATCH):
            count = min(BATCH, len(self) - start)
            data = _read(path, stream, count * size)
            if len(data) != count * size:
                raise ValueError(
                    f"{path} is cut short: it has {start + len(data) // size} of {len(self)} images"
                )
            yield to_planes(np.frombuffer(data, np.uint8).reshape(count, 64, 64, 3))
        # The checksum is compared at the end of the stream.
        if _read(path, stream, 1):
            raise ValueError(f"{path}: there is more in {MEMBER} than {len(self)} images")


def _header(path: Path, stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether it is in Fortran order, and dtype of the .npy stream."""
    try:
        version = np.lib.format.read_magic(stream)
        if version == (1, 0):
            return np.lib.format.read_array_header_1_0(stream)
        return np.lib.format.read_array_header_2_0(stream)
    except (ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} is damaged: {MEMBER} has no valid header ({error})") from error


def _read(path: Path, stream: IO[bytes], count: int) -> bytes:
    try:
        return stream.read(count)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ValueError(f"{path} is damaged: {MEMBER} cannot be read ({error})") from error
