"""From the files that people have to one memory-mapped array, once.

The array is a .npy file, uint8 (images, 3, height, width). It is written under a temporary name, with plain
writes (a full disk under a writable memory map kills the process), and renamed when it is complete. So a file
of the final name is a finished one, whatever interrupted the conversions before it.
"""

from __future__ import annotations

import errno
import importlib
import io
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fqvae.files import lock


def optional(module: str, purpose: str) -> Any:
    """Import a module that only the readers need, or say how to install it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        if error.name != package:
            raise
        raise ModuleNotFoundError(
            f"{purpose} needs {package}, which is not installed: pip install 'fqvae_kernels[train]'",
            name=package,
        ) from error


def convert(target: Path, shape: tuple[int, int, int, int], batches: Iterable[NDArray[np.uint8]]) -> None:
    """Write target, unless another process does so first.

    Args:
        target: the .npy file to make.
        shape: (images, 3, height, width).
        batches: the images in order, uint8 (some, 3, height, width) each. Errors raised on the way pass
            through; the temporary file is removed.

    Raises:
        OSError: no space, no permission to write.
    """
    part = target.with_name(target.name + ".part")
    while not target.exists():
        with _open_part(part) as stream:
            # Another process (a rank of the same job, say) may hold the lock: it converts, this one waits.
            lock(stream, wait=True)
            if not _is_file(part, stream):
                continue  # it has finished, or given up
            if target.exists():
                part.unlink()
                return
            try:
                _write(stream, part, shape, batches)
                part.rename(target)
            except BaseException:
                part.unlink(missing_ok=True)
                raise


def load(path: Path, shape: tuple[int, int, int, int]) -> NDArray[np.uint8]:
    """A converted file as a read-only array that is not read into memory.

    Raises:
        ValueError: not such a file: damaged, or of another set. It is left as it is.
    """
    advice = f"delete {path} to have it converted again"
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); {advice}") from error
    if array.shape != shape or array.dtype != np.uint8:
        raise ValueError(
            f"{path} must hold uint8 {shape}, but holds {array.dtype} {array.shape}, another set; {advice}"
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
            f"cannot write the converted images to {part.parent} ({error.strerror}); "
            "name a folder for them as cache",
        ) from error


def _is_file(path: Path, stream: io.FileIO) -> bool:
    """Whether the open file is still the one of that name."""
    try:
        return os.path.samestat(path.stat(), os.fstat(stream.fileno()))
    except FileNotFoundError:
        return False


def _write(
    stream: io.FileIO, part: Path, shape: tuple[int, int, int, int], batches: Iterable[NDArray[np.uint8]]
) -> None:
    tqdm = optional("tqdm", "converting images").tqdm
    stream.truncate(0)
    needed = int(np.prod(shape))
    free = shutil.disk_usage(part.parent).free
    if free < needed:
        raise OSError(
            errno.ENOSPC,
            f"the converted images need {needed / 1e9:.2f} GB, but {part.parent} has {free / 1e9:.2f} GB "
            "free; name another folder as cache",
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
            "written is removed, the original is untouched; name another folder as cache",
        ) from error
