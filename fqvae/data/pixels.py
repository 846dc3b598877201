"""Image files to arrays: grey or with colours, 16 bits to 8, sizes looked at before anything is decoded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from fqvae.data.archive import reason
from fqvae.data.conversion import optional

# What Pillow calls pictures without colours: of one bit, of 8 bits, with transparency, of 16 bits.
_GREY = ("1", "L", "LA", "La")
_DEEP = ("I", "I;16", "I;16B", "I;16L")


@contextmanager
def open_picture(where: str, stream: IO[bytes]) -> Iterator[Any]:
    """A picture whose header is read, its pixels not yet.

    where: the file, for the message. Raises ValueError for what is no picture, is damaged or is far too
    large, inside the block as well.
    """
    image = optional("PIL.Image", f"reading {where}")
    try:
        with image.open(stream) as picture:
            yield picture
    except MisfitError as error:
        raise ValueError(f"{where} {error}") from None
    except Exception as error:  # of many types, by format and damage
        raise ValueError(f"{where} cannot be read as an image ({reason(error)})") from error


class MisfitError(ValueError):
    """A picture that is sound, but is not what it must be; the message goes on after the file's name."""


def upright_size(picture: Any) -> tuple[int, int]:
    """Width and height in pixels of a picture as it is looked at; see `_upright`."""
    width, height = picture.size
    return (height, width) if _orientation(picture) >= 5 else (width, height)


def check_size(picture: Any, size: tuple[int, int]) -> None:
    """Raise MisfitError unless it is so wide and high, in pixels."""
    if upright_size(picture) != size:
        raise MisfitError(f"must be {size} pixels wide and high, but is {upright_size(picture)}")


def is_grey(picture: Any) -> bool:
    """Whether it has no colours."""
    return picture.mode in _GREY or picture.mode in _DEEP


def to_array(picture: Any, channels: int, size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """uint8 (channels, height, width); transparency is left out.

    channels: 1 for a picture without colours, or 3.
    size: (width, height) to resize to, bicubic and antialiased. None: as it is.
    """
    image = optional("PIL.Image", "reading images")
    picture = _upright(picture)
    if picture.mode in _DEEP:
        # Pillow would clip: 65535 levels become 255.
        levels = np.asarray(picture).astype(np.int64).clip(0, 65535)
        picture = image.fromarray(((levels * 255 + 32767) // 65535).astype(np.uint8))
    pixels = picture.convert("L" if channels == 1 else "RGB")
    if size is not None and pixels.size != size:
        pixels = pixels.resize(size, image.Resampling.BICUBIC)
    array = np.asarray(pixels)
    return np.ascontiguousarray(array[None] if channels == 1 else array.transpose(2, 0, 1))


def _orientation(picture: Any) -> int:
    """Of a JPEG file's EXIF block, 1 to 8, known from its header; from 5 on the sides change places."""
    found = picture.getexif().get(0x0112, 1) if getattr(picture, "format", None) == "JPEG" else 1
    return found if found in range(1, 9) else 1


def _upright(picture: Any) -> Any:
    """A camera's picture turned as it was held."""
    if _orientation(picture) == 1:
        return picture
    return optional("PIL.ImageOps", "reading images").exif_transpose(picture)
