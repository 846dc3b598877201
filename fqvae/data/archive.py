"""Zip files, npz files and .npy streams, read without trust: damage is a ValueError that names the file."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

BATCH_BYTES = 1 << 24  # of images that are read at a time
_LONGEST_HEADER = 10_000  # bytes; NumPy's own limit


class Header(NamedTuple):
    """What a .npy stream says of its array."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]

    @property
    def size(self) -> int:
        """Bytes of the array."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __str__(self) -> str:
        return f"{self.dtype} {self.shape}"


@contextmanager
def open_zip(path: Path, kind: str = "zip") -> Iterator[zipfile.ZipFile]:
    """A zip file, open. kind: what it should be, for the message. Raises ValueError if it is none."""
    try:
        archive = zipfile.ZipFile(path)
    except OSError:
        raise
    except Exception as error:  # of many types, by where the damage is
        raise ValueError(f"{path} is not a {kind} file, or is cut short ({reason(error)})") from error
    with archive:
        yield archive


@contextmanager
def open_member(path: Path, archive: zipfile.ZipFile, name: str) -> Iterator[IO[bytes]]:
    """A file in a zip file, open. Raises ValueError if it is encrypted, or packed in an unknown way."""
    try:
        stream = archive.open(name)
    except KeyError:
        raise ValueError(f"{path}: there is no {name}") from None
    except Exception as error:  # of many types: no such compression, a password, damage
        raise ValueError(f"{path}: {name} cannot be read ({reason(error)})") from error
    with stream:
        yield stream


def read_header(path: Path, name: str, stream: IO[bytes]) -> Header:
    """The header of a .npy stream of this name. Raises ValueError if it has no valid one."""
    try:
        version = np.lib.format.read_magic(stream)
        width = 2 if version == (1, 0) else 4
        length = stream.read(width)
        if len(length) < width or int.from_bytes(length, "little") > _LONGEST_HEADER:
            raise ValueError("the header is cut short, or too long")
        text = io.BytesIO(length + stream.read(int.from_bytes(length, "little")))
        read = np.lib.format.read_array_header_1_0 if width == 2 else np.lib.format.read_array_header_2_0
        header = Header(*read(text))
        if any(type(length) is not int or length < 0 for length in header.shape):
            raise ValueError(f"the shape is {header.shape}")
    except Exception as error:  # of many types: the header is a Python expression
        raise ValueError(f"{path} is damaged: {name} has no valid header ({reason(error)})") from error
    return header


def read_bytes(path: Path, name: str, stream: IO[bytes], count: int) -> bytes:
    """At most so many bytes, fewer at the end. Raises ValueError for a damaged file."""
    try:
        return stream.read(count)
    except Exception as error:  # of many types, by compression and damage
        raise ValueError(f"{path} is damaged: {name} cannot be read ({reason(error)})") from error


def read_array(path: Path, name: str, stream: IO[bytes], header: Header) -> NDArray[Any]:
    """The array that follows a header. Raises ValueError: Python objects in it, or it is cut short."""
    if header.dtype.hasobject:
        raise ValueError(f"{path}: {name} must hold numbers or texts, but holds Python objects")
    data = read_bytes(path, name, stream, header.size)
    if len(data) != header.size:
        raise ValueError(f"{path} is cut short: {name} has {len(data)} of {header.size} bytes")
    array: NDArray[Any] = np.frombuffer(data, header.dtype)
    return array.reshape(header.shape[::-1]).T if header.fortran else array.reshape(header.shape)


def image_rows(path: Path, name: str, stream: IO[bytes], header: Header) -> Iterator[NDArray[np.uint8]]:
    """The uint8 array in C order that follows a header, some rows at a time. Raises ValueError for damage."""
    total = header.shape[0]
    size = math.prod(header.shape[1:])
    rows = max(1, BATCH_BYTES // max(size, 1))
    for start in range(0, total, rows):
        count = min(rows, total - start)
        data = read_bytes(path, name, stream, count * size)
        if len(data) != count * size:
            raise ValueError(f"{path} is cut short: it has {start + len(data) // size} of {total} images")
        yield np.frombuffer(data, np.uint8).reshape(count, *header.shape[1:])
    # The checksum is compared at the end of the stream.
    if read_bytes(path, name, stream, 1):
        raise ValueError(f"{path}: there is more in {name} than {total} images")


def reason(error: BaseException) -> str:
    """What an error says, in one line."""
    return " ".join(str(error).split()) or type(error).__name__
