"""Isaac3D (Nie et al., ICML 2020): Isaac3D_down128.zip or the folder that it unpacks to."""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fqvae.data.conversion import optional
from fqvae.data.files import FileDataset

BATCH = 512
FILE_SIZE = (128, 128)
IMAGE = re.compile(r"(?P<folder>.*/|)images/(?P<number>\d{6})\.png")

ReadFile = Callable[[str], bytes]


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
    def _open(self) -> Iterator[Iterator[NDArray[np.uint8]]]:
        optional("PIL.Image", "reading the images of Isaac3D")
        unpacked = self._unpacked()
        if unpacked is not None:
            names = (f"images/{path.name}" for path in (unpacked / "images").iterdir())
            yield self._checked(unpacked, names, lambda name: (unpacked / name).read_bytes())
            return
        path = self._source()
        try:
            archive = zipfile.ZipFile(path)
        except zipfile.BadZipFile as error:
            raise ValueError(f"{path} is not a zip file, or is cut short ({error})") from error
        with archive:
            yield self._checked(path, iter(archive.namelist()), archive.read)

    def _unpacked(self) -> Path | None:
        """The folder that holds images, if root is it or has it."""
        for folder in (self.root, self.root / Path(self.original).stem):
            if (folder / "images").is_dir():
                return folder
        return None

    def _source(self) -> Path:
        try:
            return super()._source()
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{error}; a folder with images and labels.npy serves as well") from None

    def _checked(self, path: Path, names: Iterator[str], read: ReadFile) -> Iterator[NDArray[np.uint8]]:
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
        self._check_labels(path, _labels(path, folder + "labels.npy", read))
        return self._batches(path, folder, read)

    def _batches(self, path: Path, folder: str, read: ReadFile) -> Iterator[NDArray[np.uint8]]:
        def image(number: int) -> NDArray[np.uint8]:
            return _image(path, f"{folder}images/{number:06d}.png", read)

        # Pillow lets other threads run while it decodes and resizes.
        with ThreadPoolExecutor() as pool:
            for start in range(0, len(self), BATCH):
                yield np.stack(list(pool.map(image, range(start, min(start + BATCH, len(self))))))


def _image(path: Path, name: str, read: ReadFile) -> NDArray[np.uint8]:
    """One file as (3, 64, 64)."""
    image: Any = optional("PIL.Image", "reading the images of Isaac3D")
    try:
        with image.open(io.BytesIO(read(name))) as picture:
            pixels = picture.convert("RGB")
    except (OSError, SyntaxError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path}: {name} cannot be read as an image ({error})") from error
    if pixels.size != FILE_SIZE:
        raise ValueError(f"{path}: {name} must be {FILE_SIZE} pixels wide and high, but is {pixels.size}")
    small = np.asarray(pixels.resize((64, 64), image.Resampling.BICUBIC))
    return np.ascontiguousarray(small.transpose(2, 0, 1))


def _labels(path: Path, name: str, read: ReadFile) -> NDArray[Any]:
    try:
        labels: NDArray[Any] = np.load(io.BytesIO(read(name)), allow_pickle=False)
    except (KeyError, FileNotFoundError):
        raise ValueError(f"{path}: there is no {name}") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path}: {name} cannot be read ({error})") from error
    return labels
