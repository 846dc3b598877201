"""Anybody's images in a folder of PNG or JPEG files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fqvae.data.archive import BATCH_BYTES
from fqvae.data.conversion import optional
from fqvae.data.converted import Content, file_identity
from fqvae.data.labels import read_csv
from fqvae.data.own import OwnImages
from fqvae.data.pixels import check_size, is_grey, open_picture, to_array, upright_size

_ENDINGS = (".png", ".jpg", ".jpeg")
_TABLE = "labels.csv"


class FolderImages(OwnImages):
    """The PNG and JPEG files of a folder and of the folders in it, in the order of their paths.

    Files whose names begin with a dot are left out. If all are grey the images have one channel, otherwise
    three. labels.csv, if there is one, has a row for each file: its path from the folder in the column "file"
    (or the first), and a column for each factor, headed by its name. Arguments and errors: `OwnImages`.
    """

    name = "folder"

    def _identity(self) -> dict[str, Any] | None:
        if not self.root.is_dir():
            return None
        digest, files = hashlib.sha256(), self._files()
        for name in files:
            status = (self.root / name).stat()
            digest.update(os.fsencode(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\n"))
        table = file_identity(self.root / _TABLE)
        return {"files": len(files), "sha256_of_listing": digest.hexdigest(), "labels": table}

    def _files(self) -> list[str]:
        """The images' paths from the root, in order."""
        found = [
            (Path(folder) / name).relative_to(self.root).as_posix()
            for folder, _, names in os.walk(self.root)
            for name in names
            if name.lower().endswith(_ENDINGS) and not name.startswith(".")
        ]
        return sorted(found)

    @contextmanager
    def _open(self) -> Iterator[Content]:
        optional("PIL.Image", "reading images")
        if not self.root.is_dir():
            raise FileNotFoundError(
                f"folder: there is no folder {self.root}; root must be one that holds PNG or JPEG files"
            )
        files = self._files()
        if not files:
            raise ValueError(f"{self.root}: there are no PNG or JPEG files")
        with ThreadPoolExecutor() as pool:
            heads = list(pool.map(self._head, files))
        channels = 1 if all(grey for _, grey in heads) else 3
        width, height = heads[0][0]
        if not self.resize:
            for name, (size, _) in zip(files, heads, strict=True):
                if size != (width, height):
                    raise ValueError(
                        f"{self.root}: images must be of one size, but {files[0]} is {(width, height)} and "
                        f"{name} is {size} pixels wide and high; have them resized: data.resize=true "
                        "data.size=SIZE"
                    )
        shape = channels, height, width
        self._check_shape(str(self.root), shape)
        table = self.root / _TABLE
        about = {"labels": read_csv(table, files).to_plain()} if table.is_file() else {}
        shape = self._final(shape)
        yield Content((len(files), *shape), self._batches(files, shape, (width, height)), about)

    def _head(self, name: str) -> tuple[tuple[int, int], bool]:
        """Width and height of a file's picture, and whether it is grey."""
        path = self.root / name
        with open(path, "rb") as stream, open_picture(str(path), stream) as picture:
            return upright_size(picture), is_grey(picture)

    def _batches(
        self, files: list[str], shape: tuple[int, int, int], size: tuple[int, int]
    ) -> Iterator[NDArray[np.uint8]]:
        channels, height, width = shape

        def image(name: str) -> NDArray[np.uint8]:
            path = self.root / name
            with open(path, "rb") as stream, open_picture(str(path), stream) as picture:
                if not self.resize:
                    check_size(picture, size)
                return to_array(picture, channels, (width, height) if self.resize else None)

        count = max(1, BATCH_BYTES // (channels * height * width))
        with ThreadPoolExecutor() as pool:
            for start in range(0, len(files), count):
                yield np.stack(list(pool.map(image, files[start : start + count])))
