"""The contact sheet of RayShapes: python -m fqvae.data.sheet docs/rayshapes.png"""

from __future__ import annotations

import sys

import numpy as np

from fqvae.data.conversion import optional
from fqvae.data.rayshapes import RayShapes

BASE = (4, 6, 0, 5, 1, 10)
COLUMNS, CELL, MARGIN = 15, 66, 112


def write(path: str) -> None:
    """One row a factor, all else fixed, then random images of both sizes; as a PNG file."""
    image = optional("PIL.Image", "the contact sheet")
    draw = optional("PIL.ImageDraw", "the contact sheet")
    font = optional("PIL.ImageFont", "the contact sheet").load_default(14)
    shapes = RayShapes(64)
    rows = []
    for j, (name, size) in enumerate(zip(shapes.factor_names, shapes.factor_sizes, strict=True)):
        factors = np.tile(BASE, (size, 1))
        factors[:, j] = np.arange(size)
        rows.append((name.replace("_", " "), shapes, shapes.index(factors).numpy()))
    generator = np.random.default_rng(0)
    rows += [
        (f"random, {kind.size} x {kind.size}", kind, generator.integers(len(kind), size=COLUMNS))
        for kind in (shapes, shapes, RayShapes(32))
    ]
    sheet = image.new("RGB", (MARGIN + COLUMNS * CELL, len(rows) * CELL), "white")
    for row, (label, kind, index) in enumerate(rows):
        draw.Draw(sheet).text((4, row * CELL + CELL // 2), label, "black", font, anchor="lm")
        for column, picture in enumerate(kind.images(index).permute(0, 2, 3, 1).numpy()):
            sheet.paste(
                image.fromarray(picture), (MARGIN + column * CELL, row * CELL + (CELL - kind.size) // 2)
            )
    sheet.save(path, optimize=True)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    write(sys.argv[1])
