"""A traversal that moves: a GIF in which every latent goes through its steps and back."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import ArrayLike, NDArray

from fqvae.figures.images import pictures
from fqvae.figures.style import INK, PAPER

MOST_BYTES = 1_000_000
_CELLS = (96, 64, 48, 32)  # pixels that an image is enlarged to, if a whole factor allows it; largest first
_GAP = 8
_LINE = 16  # pixels for a label
_LETTERS = 11  # pixels of its letters


def animate(images: Sequence[ArrayLike], labels: Sequence[str], *, milliseconds: int = 140) -> bytes:
    """A GIF with an image for each latent, side by side; all move together, there and back, for ever.

    It is drawn smaller where it would take more than a megabyte; at its smallest it may still.

    Args:
        images: for each latent uint8 (steps, 1 or 3, S, S); rows may differ in length: all take equally long.
        labels: of the latents, written below them; cut where they are too long.
        milliseconds: that a frame is shown, at least 20.

    Returns:
        The file's content. It has 256 colours, so that images change slightly.

    Raises:
        TypeError, ValueError: another dtype or shape; another number of labels; no latents; too short a time.
    """
    rows = [pictures("images", row) for row in images]
    if not rows or len({row.shape[1:] for row in rows}) != 1:
        raise ValueError(
            f"images must be rows of one image size, but were {[np.shape(row) for row in images]}"
        )
    if len(labels) != len(rows):
        raise ValueError(f"labels must be given for each of {len(rows)} rows, but there were {len(labels)}")
    if milliseconds < 20:
        raise ValueError(f"milliseconds must be at least 20, but was {milliseconds}")
    sizes = {max(1, cell // rows[0].shape[1]) for cell in _CELLS}
    content = b""
    for scale in sorted(sizes, reverse=True):
        content = _encode(_frames(rows, labels, scale), milliseconds)
        if len(content) <= MOST_BYTES:
            break
    return content


def _frames(rows: list[NDArray[np.uint8]], labels: Sequence[str], scale: int) -> list[Any]:
    """The frames as Pillow's images."""
    from PIL import Image, ImageDraw

    size = scale * rows[0].shape[1]
    columns = -(-len(rows) // max(1, round((len(rows) / 1.7) ** 0.5)))
    lines = -(-len(rows) // columns)
    ground = Image.new("RGB", (_GAP + columns * (size + _GAP), _GAP + lines * (size + _LINE + _GAP)), PAPER)
    corners = [
        (_GAP + place % columns * (size + _GAP), _GAP + place // columns * (size + _LINE + _GAP))
        for place in range(len(rows))
    ]
    pen, font = ImageDraw.Draw(ground), _font()
    for (x, y), label in zip(corners, labels, strict=True):
        pen.text((x, y + size + 2), _cut(label, font, size), fill=INK, font=font)
    count = max(map(len, rows))
    frames = []
    for step in [*range(count), *range(count - 2, 0, -1)]:
        frame = ground.copy()
        for (x, y), row in zip(corners, rows, strict=True):
            own = int(step / max(count - 1, 1) * (len(row) - 1) + 0.5)
            frame.paste(Image.fromarray(row[own].repeat(scale, 0).repeat(scale, 1)), (x, y))
        frames.append(frame)
    return frames


def _encode(frames: list[Any], milliseconds: int) -> bytes:
    """The frames as a GIF with one palette, so that what does not move does not flicker."""
    from PIL import Image

    some = Image.fromarray(np.concatenate([np.asarray(frame)[::5, ::5] for frame in frames]))
    # Not MEDIANCUT: it spends the palette on what is frequent, and gives rare colours another hue.
    palette = some.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=1)
    first, *others = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    file = io.BytesIO()
    first.save(
        file, "GIF", save_all=True, append_images=others, duration=milliseconds, loop=0, optimize=False
    )
    return file.getvalue()


def _font() -> Any:
    """The letters of all figures, from matplotlib's own files."""
    from PIL import ImageFont

    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"), _LETTERS)


def _cut(label: str, font: Any, width: int) -> str:
    """The label, or its beginning and an ellipsis where it is wider."""
    short = label
    while short and font.getlength(short) > width:
        short = short.removesuffix("…")[:-1] + "…" if len(short) > 1 else ""
    return short
