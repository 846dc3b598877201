"""RayShapes: 480,000 images of a ray-cast scene, with the factors of Shapes3D, made on demand."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fqvae.data import scene
from fqvae.data.correlation import Correlation
from fqvae.data.factors import FactorGrid, IntArray

SIZES = (32, 64)
GEOMETRIES = len(scene.SCALES) * len(scene.SHAPES) * len(scene.ORIENTATIONS)

# Pixels that are mixed at a time, so that the sums stay in a core's cache.
CHUNK_PIXELS = 1 << 15


class RayShapes(FactorGrid):
    """A room, and on its floor a cube, cylinder, sphere or capsule.

    Factors, in index order: hue of the floor, the wall and the object (10 each, red first, 36 degrees apart),
    scale (8, 0.75 to 1.25), shape (4, as listed above), orientation (15, the camera's angle round the object,
    -30 to 30 degrees). Every image follows from its number alone.

    Only scale, shape and orientation change what a ray hits: 480 cases. The first images of a size take a
    few seconds, in which the brightness of the three surfaces is summed over the rays of every pixel of every
    case; after that an image is three products and a sum, equal to the byte to one that is cast ray by ray.

    Args:
        size: height and width, 64 or 32.
        correlated: {tied factor: leading factor}, names of factors; see `Correlation`. The set still has
            every image: `split` thins the training part.
        strength: of the ties, 0 (none) to 1 (complete).

    Raises:
        ValueError: a size or strength that is not allowed, an unknown factor, a strength without a tie.
    """

    name = "rayshapes"
    factor_names = ("floor_hue", "wall_hue", "object_hue", "scale", "shape", "orientation")
    factor_sizes = (
        scene.HUES,
        scene.HUES,
        scene.HUES,
        len(scene.SCALES),
        len(scene.SHAPES),
        len(scene.ORIENTATIONS),
    )
    correlation: Correlation | None

    def __init__(
        self, size: int = 64, *, correlated: Mapping[str, str] | None = None, strength: float = 0.0
    ) -> None:
        if size not in SIZES:
            raise ValueError(f"size must be one of {SIZES}, but was {size!r}")
        if strength and not correlated:
            raise ValueError(f"strength was {strength}, but correlated names no factors to tie")
        self.size = size
        self.image_shape = (3, size, size)
        self.correlation = Correlation(self, correlated, strength) if correlated else None

    def reopen(self) -> dict[str, Any]:
        """The keys of `DataConfig` that open this set again."""
        tied = self.correlation
        pairs = ",".join(f"{b}:{a}" for b, a in tied.pairs.items()) if tied is not None else None
        return {
            "name": self.name,
            "correlated": pairs,
            "strength": tied.strength if tied is not None else 0.0,
        }

    def images(self, index: IntArray) -> Tensor:
        """Render.

        Args:
            index: (batch,) of integers.

        Returns:
            uint8 (batch, 3, size, size), on the CPU.

        Raises:
            TypeError, ValueError, IndexError: as factors.
        """
        colour, geometry = np.divmod(self.check_index(index), GEOMETRIES)
        hues = np.stack(np.unravel_index(colour, self.factor_sizes[:3]), 1)
        levels = scene.palette()[hues][..., None]  # (batch, surfaces, channels, 1)
        table = _brightness(self.size)
        pixels = self.size**2
        images = np.empty((len(geometry), 3, pixels), np.uint8)
        chunk = CHUNK_PIXELS // pixels
        for start in range(0, len(geometry), chunk):
            part = slice(start, start + chunk)
            images[part] = _mix(table[geometry[part]], levels[part])
        return torch.from_numpy(images.reshape(-1, *self.image_shape))

    def render(self, index: int) -> Tensor:
        """The same image cast ray by ray, hundreds of times slower: uint8 (3, size, size)."""
        floor, wall, thing, scale, shape, orientation = self.factors(np.array([index]))[0].tolist()
        view = scene.View(self.size, scene.ORIENTATIONS[orientation])
        trace = view.trace(scene.SHAPES[shape], scene.SCALES[scale])
        return torch.from_numpy(scene.render(self.size, floor, wall, thing, trace))


def _mix(brightness: NDArray[np.uint16], levels: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Colour the surfaces; no sum exceeds 16 bits (scene.ROUNDING).

    Args:
        brightness: (chunk, surfaces + 1, pixels), a part of the table below.
        levels: (chunk, surfaces, channels, 1).

    Returns:
        (chunk, channels, pixels), 0 to 255.
    """
    total = brightness[:, scene.FLOOR, None] * levels[:, scene.FLOOR]
    total += brightness[:, -1, None]
    product = brightness[:, scene.WALL, None] * levels[:, scene.WALL]
    total += product
    np.multiply(brightness[:, scene.OBJECT, None], levels[:, scene.OBJECT], out=product)
    total += product
    total >>= 8
    return total


@functools.cache
def _brightness(size: int) -> NDArray[np.uint16]:
    """Brightness summed over each pixel's rays: (geometries, 4, size**2), 15 MiB at size 64.

    The four are floor, wall, object, and what needs no colour: the highlight, and what rounds.
    """
    cases = len(scene.SCALES), len(scene.SHAPES), len(scene.ORIENTATIONS)
    table = np.empty((*cases, 4, size**2), np.uint16)
    for k, degrees in enumerate(scene.ORIENTATIONS):
        view = scene.View(size, degrees)
        for i, scale in enumerate(scene.SCALES):
            for j, shape in enumerate(scene.SHAPES):
                trace = view.trace(shape, scale)
                for surface in (scene.FLOOR, scene.WALL, scene.OBJECT):
                    brightness = np.where(trace.surface == surface, trace.brightness, 0)
                    brightness.sum(0, out=table[i, j, k, surface], dtype=np.uint16)
                table[i, j, k, -1] = scene.WHITE * trace.gloss.sum(0, dtype=np.uint16) + scene.ROUNDING
    table.flags.writeable = False
    return table.reshape(GEOMETRIES, 4, size**2)
