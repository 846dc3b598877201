"""Figures made of images: latent traversals."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike, NDArray

from fqvae.figures.style import INK, MUTED, SECOND, canvas, literal, styled

_CELL = 128  # pixels that an image is enlarged to, if a whole factor allows it
_GAP = 10
_MARGIN = 28
_NARROWEST = 1000
_LABELS = 250  # pixels for the labels on the left
_LETTER = 9.5  # pixels of a letter of small text, about
_LINE = 26  # pixels for a line of small text


@styled
def traversals(
    images: Sequence[ArrayLike],
    labels: Sequence[str],
    *,
    details: Sequence[str] | None = None,
    values: Sequence[Sequence[str]] | None = None,
    current: Sequence[int] | None = None,
    original: ArrayLike | None = None,
    caption: str = "",
    title: str = "",
    note: str = "",
) -> Figure:
    """A row of images for each latent.

    Args:
        images: for each latent uint8 (steps, 1 or 3, S, S); rows may differ in length.
        labels: of the rows; details: further lines for each, "" for none.
        values: what to write under each image.
        current: in each row the number of the image to frame.
        original: uint8 (1 or 3, S, S), the image whose latents move, above all rows, the caption beside it.
        title, note: above and below.

    Raises:
        TypeError, ValueError: another dtype or shape; another number of labels, details, values or current.
    """
    rows = [pictures("images", row) for row in images]
    if len({row.shape[1:] for row in rows}) != 1:
        raise ValueError(
            f"images must be rows of one image size, but were {[np.shape(row) for row in images]}"
        )
    for name, given in (("labels", labels), ("details", details), ("values", values), ("current", current)):
        if given is not None and len(given) != len(rows):
            raise ValueError(
                f"{name} must be given for each of {len(rows)} rows, but there were {len(given)}"
            )
    if values is not None and [*map(len, values)] != [*map(len, rows)]:
        raise ValueError(
            f"values must be given for each image, {[*map(len, rows)]}, but were {[*map(len, values)]}"
        )
    size = _cell(rows[0])
    width = max(_LABELS + max(map(len, rows)) * (size + _GAP) - _GAP, _NARROWEST) + _MARGIN
    note = textwrap.fill(note, int((width - 2 * _MARGIN) / _LETTER))
    first = _MARGIN + (2 * _LINE if title else 0)
    top = first + (0 if original is None else size + 2 * _GAP + _LINE)
    height = size + _GAP + (_LINE if values else 0)
    bottom = top + len(rows) * height
    figure, axes = canvas(width, bottom + (_LINE + 4) * len(note.splitlines()) + _MARGIN)

    axes.text(_MARGIN, _MARGIN, literal(title), va="top", fontsize=9, fontweight="bold")
    if original is not None:
        (picture,) = pictures("original", np.asarray(original)[None])
        _label(axes, first + size / 2, "image")
        _place(axes, picture, _LABELS, first, size)
        _small(axes, _LABELS + size + 2 * _GAP, first + size / 2, caption, va="center")
    for number, (row, label) in enumerate(zip(rows, labels, strict=True)):
        y = top + number * height
        _label(axes, y + size / 2, label, details[number] if details else "")
        for column, picture in enumerate(row):
            x = _LABELS + column * (size + _GAP)
            _place(axes, picture, x, y, size)
            marked = current is not None and current[number] == column
            if marked:
                axes.add_patch(Rectangle((x - 2, y - 2), size + 4, size + 4, fill=False, ec=SECOND, lw=1.4))
            if values:
                text, color = values[number][column], SECOND if marked else MUTED
                _small(
                    axes, x + size / 2, y + size + 5, text, ha="center", va="top", fontsize=5.5, color=color
                )
    _small(axes, _MARGIN, bottom + _GAP, note, va="top")
    return figure


def _small(axes: Axes, x: float, y: float, text: str, **style: Any) -> None:
    axes.text(x, y, literal(text), **{"fontsize": 6.5, "color": MUTED, "linespacing": 1.45, **style})


def _label(axes: Axes, y: float, text: str, detail: str = "", color: str = INK) -> None:
    """To the left of a row, its middle at y."""
    lines = detail.splitlines()
    y -= len(lines) * _LINE / 2
    axes.text(_LABELS - 16, y, literal(text), ha="right", va="center", color=color)
    for number, line in enumerate(lines, 1):
        _small(axes, _LABELS - 16, y + number * _LINE, line, ha="right", va="center")


def _place(axes: Axes, picture: NDArray[np.uint8], x: float, y: float, size: int) -> None:
    axes.imshow(
        picture, extent=(x, x + size, y + size, y), interpolation="none", aspect="auto", origin="upper"
    )


def _cell(pictures: NDArray[np.uint8]) -> int:
    """Pixels of an image in the figure: a multiple of its own."""
    size = int(pictures.shape[1])
    return size * max(1, _CELL // size)


def pictures(name: str, images: ArrayLike) -> NDArray[np.uint8]:
    """uint8 (images, 1 or 3, S, S) to (images, S, S, 3)."""
    array = np.asarray(images)
    if array.dtype != np.uint8:
        raise TypeError(f"{name} must be uint8, but were {array.dtype}")
    if array.ndim != 4 or not len(array) or array.shape[1] not in (1, 3) or array.shape[2] != array.shape[3]:
        raise ValueError(f"{name} must be of shape (images, 1 or 3, S, S), but were {array.shape}")
    return np.broadcast_to(array.transpose(0, 2, 3, 1), (len(array), *array.shape[2:], 3))
