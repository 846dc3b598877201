"""MPI3D-Complex (Gondal et al., NeurIPS 2019): real3d_complicated_shapes_ordered.npz."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fqvae.data.archive import image_rows, open_member, open_zip, read_header
from fqvae.data.converted import Content
from fqvae.data.files import FileDataset, to_planes

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
    def _open(self) -> Iterator[Content]:
        path = self._existing()
        with open_zip(path, "npz") as archive:
            if MEMBER not in archive.namelist():
                found = [name.removesuffix(".npy") for name in archive.namelist()]
                raise ValueError(f"{path}: must hold images, but holds {found[:10]}")
            with open_member(path, archive, MEMBER) as stream:
                header = read_header(path, MEMBER, stream)
                self._check_images(path, header.shape, header.dtype)
                if header.fortran:
                    raise ValueError(f"{path}: images must be stored in C order, but are in Fortran order")
                yield Content(self._wanted(), map(to_planes, image_rows(path, MEMBER, stream, header)), {})
