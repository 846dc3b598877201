"""Isaac3D (Nie et al., ICML 2020): Isaac3D_down128.zip or the folder that it unpacks to."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from fqvae.data.archive import open_member, open_zip, read_array, read_header, reason
from fqvae.data.conversion import optional
from fqvae.data.converted import Content, file_identity
from fqvae.data.files import FileDataset
from fqvae.data.pixels import check_size, open_picture, to_array

BATCH = 512
FILE_SIZE = (128, 128)
IMAGE = re.compile(r"(?P<folder>.*/|)images/(?P<number>\d{6})\.png")

OpenFile = Callable[[str], AbstractContextManager[IO[bytes]]]


class Isaac3D(FileDataset):
    """737,280 images of a robot arm in a kitchen, rendered.

    The zip file or folder holds images/000000.png and so on, 128 x 128, which are resized to 64 x 64
    (bicubic, antialiased), and labels.npy (737280, 9), whose order is checked. root may also be the unpacked
    folder. Arguments and errors: `FileDataset`.
    """

    name = "isaac3d"
    original = "Isaac3D_down128.zip"
    factor_names = (
        "shape",
        "robot_x",
        "robot_y",
        "camera_height",
        "scale",
        "light_intensity",
        "light_y",
        "object_colour",
        "wall_colour",
    )
    factor_sizes = (3, 8, 5, 4, 4, 4, 6, 4, 4)

    @contextmanager
    def _open(self) -> Iterator[Content]:
        optional("PIL.Image", "reading the images of Isaac3D")
        unpacked = self._unpacked()
        if unpacked is not None:
            names = (f"images/{path.name}" for path in (unpacked / "images").iterdir())
            batches = self._checked(unpacked, names, lambda name: (unpacked / name).open("rb"))
            yield Content(self._wanted(), batches, {})
            return
        path = self._existing()
        with open_zip(path) as archive:
            batches = self._checked(
                path, iter(archive.namelist()), lambda name: open_member(path, archive, name)
            )
            yield Content(self._wanted(), batches, {})

    def _identity(self) -> dict[str, Any] | None:
        unpacked = self._unpacked()
        if unpacked is None:
            return super()._identity()
        # Not the time of each of many files: that of their folder, which a new or renamed file changes.
        changed = (unpacked / "images").stat().st_mtime_ns
        return {"images_mtime_ns": changed, "labels": file_identity(unpacked / "labels.npy")}

    def _unpacked(self) -> Path | None:
        """The folder that holds images, if root is it or has it."""
        for folder in (self.root, self.root / Path(self.original).stem):
            if (folder / "images").is_dir():
                return folder
        return None

    def _existing(self) -> Path:
        try:
            return super()._existing()
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{error}; a folder with images and labels.npy serves as well") from None

    def _checked(self, path: Path, names: Iterator[str], read: OpenFile) -> Iterator[NDArray[np.uint8]]:
        """The images, after a look at the names of all files and at the labels."""
        found = [match for match in map(IMAGE.fullmatch, names) if match]
        numbers = {int(match["number"]) for match in found}
        if not numbers:
            raise ValueError(f"{path}: there are no images/NNNNNN.png")
        missing = set(range(len(self))) - numbers
        if missing:
            raise ValueError(
                f"{path}: there must be {len(self)} images, but {len(missing)} are missing, "
                f"images/{min(missing):06d}.png the first of them"
            )
        if max(numbers) >= len(self):
            raise ValueError(f"{path}: there must be {len(self)} images, but there is number {max(numbers)}")
        folder = found[0]["folder"]
        with _opened(path, folder + "labels.npy", read) as stream:
            header = read_header(path, folder + "labels.npy", stream)
            self._check_label_shape(path, header.shape, header.dtype)
            self._check_labels(path, read_array(path, folder + "labels.npy", stream, header))
        return self._batches(path, folder, read)

    def _batches(self, path: Path, folder: str, read: OpenFile) -> Iterator[NDArray[np.uint8]]:
        def image(number: int) -> NDArray[np.uint8]:
            name = f"{folder}images/{number:06d}.png"
            with _opened(path, name, read) as stream, open_picture(f"{path}: {name}", stream) as picture:
                check_size(picture, FILE_SIZE)
                return to_array(picture, 3, (64, 64))

        # Pillow lets other threads run while it decodes and resizes.
        with ThreadPoolExecutor() as pool:
            for start in range(0, len(self), BATCH):
                yield np.stack(list(pool.map(image, range(start, min(start + BATCH, len(self))))))


@contextmanager
def _opened(path: Path, name: str, read: OpenFile) -> Iterator[IO[bytes]]:
    """A file of the set, open. Raises ValueError if it cannot be opened."""
    try:
        opened = read(name)
    except FileNotFoundError:
        raise ValueError(f"{path}: there is no {name}") from None
    except OSError as error:
        raise ValueError(f"{path}: {name} cannot be read ({reason(error)})") from error
    with opened as stream:
        yield stream
