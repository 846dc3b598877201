"""Images that are converted once, and the original that they were converted from."""

from __future__ import annotations

import hashlib
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fqvae.data.conversion import convert, load, read_note
from fqvae.data.factors import IntArray, check_index

_END = 1 << 16  # bytes at either end of a file that are compared


class Content(NamedTuple):
    """An original, opened and checked: (images, channels, height, width), its images in order, uint8 (some,
    channels, height, width) at a time, and plain values to keep with them.
    """

    shape: tuple[int, int, int, int]
    batches: Iterator[NDArray[np.uint8]]
    about: dict[str, Any]


class ConvertedImages(ABC):
    """Images in a memory-mapped array, made from an original when there is none, or one of another original.

    path: of the array. It remembers its original by size, time of change and both ends. Without the original
    it is taken as it is.
    """

    name: str
    path: Path
    image_shape: tuple[int, int, int]
    _images: NDArray[np.uint8]
    _source: dict[str, Any] | None

    @abstractmethod
    def _identity(self) -> dict[str, Any] | None:
        """What tells the original from another one; None if it is not there."""

    @abstractmethod
    def _open(self) -> AbstractContextManager[Content]:
        """Open the original and check it. Raises FileNotFoundError if it is not there."""

    def _start(self, path: Path) -> None:
        """Convert the original to this path if need be, and map it."""
        self.path = path
        source = self._identity()
        if not self._is_made_from(source):
            if path.exists():
                load(path, self._wanted())  # what is no converted file is kept
                print(f"{path} was made from another original; it is made anew", file=sys.stderr)
            with self._open() as content:
                note = {"source": source, **content.about}
                convert(path, content.shape, content.batches, note, lambda: self._is_made_from(source))
        note = read_note(path) or {}
        self._source = note.get("source")
        self._take(load(path, self._wanted()), note)

    def _wanted(self) -> tuple[int, int, int, int] | None:
        """The shape of the array, if it is known before the original is opened."""
        return None

    def _take(self, images: NDArray[np.uint8], note: dict[str, Any]) -> None:
        """Use this array, whose note is this. Raises ValueError if it does not do."""
        self._images = images

    def _is_made_from(self, source: dict[str, Any] | None) -> bool:
        """Whether the array is there, and made from this original; None: from whichever."""
        if source is None:
            return self.path.exists()
        return (read_note(self.path) or {}).get("source") == source

    def images(self, index: IntArray) -> Tensor:
        """Read.

        Args:
            index: (batch,) of integers.

        Returns:
            uint8 (batch, channels, height, width), on the CPU.

        Raises:
            TypeError, ValueError, IndexError: as factors.
        """
        return torch.from_numpy(self._images.take(check_index(self.name, len(self._images), index), axis=0))

    def __getstate__(self) -> dict[str, Any]:
        # A copy, in another process as well, maps the same file.
        return {key: value for key, value in self.__dict__.items() if key != "_images"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        note = read_note(self.path) or {}
        if note.get("source") != self._source:
            raise ValueError(f"{self.path} was made anew, from another original; open the set again")
        self._take(load(self.path, self._wanted()), note)


def full_path(path: str | Path) -> Path:
    """The path from the root of the file system, ~ expanded."""
    return Path(os.path.abspath(os.path.expanduser(path)))


def path_key(path: Path) -> str:
    """Eight letters that tell originals of one name apart where they share a folder for converted images."""
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:8]


def file_identity(path: Path) -> dict[str, Any] | None:
    """A file's name, size, time of its last change, and a digest of both ends; None if there is none."""
    if not path.is_file():
        return None
    with open(path, "rb") as file:
        status = os.fstat(file.fileno())
        ends = file.read(_END)
        file.seek(max(status.st_size - _END, 0))
        ends += file.read(_END)
    digest = hashlib.sha256(ends).hexdigest()
    return {
        "file": path.name,
        "size": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "sha256_of_ends": digest,
    }
