"""From the files that people have to one memory-mapped array, once.

The array is a .npy file, uint8 (images, 3, height, width). It is written under a temporary name, with plain
writes (a full disk under a writable memory map kills the process), and renamed when it is complete. So a file
of the final name is a finished one, whatever interrupted the conversions before it. Behind the pixels, where
NumPy does not look, it holds a note: what it was made from, and what else is known of the images.
"""

from __future__ import annotations

import errno
import importlib
import io
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fqvae.data.archive import reason
from fqvae.files import lock
from fqvae.packages import missing

_MARK = b"fqvae:01"  # the end of a file with a note; the note's length, 8 bytes, stands before it
OTHER_FOLDER = "name another folder for them: data.cache=FOLDER, or cache= in Python"


def optional(module: str, purpose: str) -> Any:
    """Import a module of `PACKAGES` that only the readers need, or say how to install it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        if error.name != package:
            raise
        raise ModuleNotFoundError(f"{purpose}: {missing(package)}", name=package) from error


def convert(
    target: Path,
    shape: tuple[int, int, int, int],
    batches: Iterable[NDArray[np.uint8]],
    note: Mapping[str, Any] | None = None,
    done: Callable[[], bool] | None = None,
) -> None:
    """Write target, unless another process does so first.

    Args:
        target: the .npy file to make.
        shape: (images, channels, height, width).
        batches: the images in order, uint8 (some, channels, height, width) each. Errors raised on the way
            pass through; the temporary file is removed.
        note: plain values to keep with the images; see `read_note`.
        done: whether the target is as it should be; by default, whether there is one. A target that is not
            is replaced when the new one is complete.

    Raises:
        OSError: no space, no permission to write.
    """
    part = target.with_name(target.name + ".part")
    done = target.exists if done is None else done
    while not done():
        with _open_part(part) as stream:
            # Another process (a rank of the same job, say) may hold the lock: it converts, this one waits.
            lock(stream, wait=True)
            if not _is_file(part, stream):
                continue  # it has finished, or given up
            if done():
                part.unlink()
                return
            try:
                _write(stream, part, shape, batches, note)
                part.replace(target)
                return
            except BaseException:
                part.unlink(missing_ok=True)
                raise


def read_note(path: Path) -> dict[str, Any] | None:
    """The note of a converted file; None if it has none, or is not there."""
    try:
        with open(path, "rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(end - 16, 0))
            tail = file.read(16)
            length = int.from_bytes(tail[:8], "little")
            if tail[8:] != _MARK or length > end - 16:
                return None
            file.seek(end - 16 - length)
            note = json.loads(file.read(length))
    except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError):
        return None
    return note if isinstance(note, dict) else None


def load(path: Path, shape: tuple[int, int, int, int] | None = None) -> NDArray[np.uint8]:
    """A converted file as a read-only array that is not read into memory.

    shape: that it must have; None: any (images, channels, height, width).

    Raises:
        ValueError: not such a file: damaged, or of another set. It is left as it is.
    """
    advice = f"delete {path} to have it converted again"
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except OSError:
        raise
    except Exception as error:  # of many types, by what the damage makes of the header
        raise ValueError(f"{path} is damaged ({reason(error)}); {advice}") from error
    fits = array.shape == shape or (shape is None and array.ndim == 4 and array.shape[1] in (1, 3))
    if not fits or array.dtype != np.uint8:
        wanted = "(images, 1 or 3, height, width)" if shape is None else shape
        raise ValueError(
            f"{path} must hold uint8 {wanted}, but holds {array.dtype} {array.shape}, another set; {advice}"
        )
    return np.asarray(array)


def _open_part(part: Path) -> io.FileIO:
    """Open for writing without emptying it: another process may be at it."""
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        return io.FileIO(os.open(part, os.O_RDWR | os.O_CREAT, 0o666), "r+")
    except OSError as error:
        raise type(error)(
            error.errno,
            f"cannot write the converted images to {part.parent} ({error.strerror}); {OTHER_FOLDER}",
        ) from error


def _is_file(path: Path, stream: io.FileIO) -> bool:
    """Whether the open file is still the one of that name."""
    try:
        return os.path.samestat(path.stat(), os.fstat(stream.fileno()))
    except FileNotFoundError:
        return False


def _write(
    stream: io.FileIO,
    part: Path,
    shape: tuple[int, int, int, int],
    batches: Iterable[NDArray[np.uint8]],
    note: Mapping[str, Any] | None,
) -> None:
    tqdm = optional("tqdm", "converting images").tqdm
    stream.truncate(0)
    needed = int(np.prod(shape))
    free = shutil.disk_usage(part.parent).free
    if free < needed:
        raise OSError(
            errno.ENOSPC,
            f"the converted images need {needed / 1e9:.2f} GB, but {part.parent} has {free / 1e9:.2f} GB "
            f"free; {OTHER_FOLDER}",
        )
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    _to_disk(stream, part, header.getbuffer())
    written = 0
    with tqdm(total=shape[0], unit="image", desc=f"converting to {part.stem}") as bar:
        for batch in batches:
            if batch.shape[1:] != shape[1:] or batch.dtype != np.uint8:
                raise ValueError(
                    f"images must be uint8 {shape[1:]}, but were {batch.dtype} {batch.shape[1:]}"
                )
            _to_disk(stream, part, np.ascontiguousarray(batch).data)
            written += len(batch)
            bar.update(len(batch))
    if written != shape[0]:
        raise ValueError(f"the source must have {shape[0]} images, but gave {written}")
    if note is not None:
        text = json.dumps(note).encode()
        _to_disk(stream, part, memoryview(text + len(text).to_bytes(8, "little") + _MARK))
    _to_disk(stream, part, None)


def _to_disk(stream: io.FileIO, part: Path, data: memoryview | None) -> None:
    """Write the data; None: see to it that all is on the disk."""
    try:
        if data is None:
            os.fsync(stream.fileno())
            return
        left = data.cast("B")
        while left:
            left = left[stream.write(left) :]
    except OSError as error:
        raise OSError(
            error.errno,
            f"the converted images could not be written to {part.parent} ({error.strerror}); what was "
            f"written is removed, the original is untouched; {OTHER_FOLDER}",
        ) from error
