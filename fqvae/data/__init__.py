"""Image sets whose factors of variation are known: one is rendered here, three are read from files.

All have the face of `FactorDataset`: images stay uint8, a batch is one gather by number, and numbers and
factors translate into each other.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from fqvae.data.factors import FactorDataset, ImageDataset, has_full_grid, nearest
from fqvae.data.isaac3d import Isaac3D
from fqvae.data.mpi3d import MPI3DComplex
from fqvae.data.rayshapes import RayShapes
from fqvae.data.shapes3d import Shapes3D
from fqvae.data.splits import Splits, split

__all__ = [
    "FactorDataset",
    "ImageDataset",
    "Isaac3D",
    "MPI3DComplex",
    "RayShapes",
    "Shapes3D",
    "Splits",
    "has_full_grid",
    "open_dataset",
    "split",
]

_FROM_FILES: dict[str, Callable[..., FactorDataset]] = {
    kind.name: kind for kind in (Shapes3D, Isaac3D, MPI3DComplex)
}


def open_dataset(
    name: str, root: str | Path | None = None, *, size: int = 64, **options: Any
) -> FactorDataset:
    """A set by its name.

    Args:
        name: "rayshapes", "shapes3d", "isaac3d" or "mpi3d_complex".
        root: the file, or the folder that it lies in. RayShapes needs none and ignores it.
        size: height and width of the images: 64, or 32 for RayShapes.
        options: of the set's class, by name.

    Raises:
        ValueError: an unknown name, a size that the set does not have, no root.
        TypeError: an option that the class does not have.
        Errors of the class.
    """
    if name == RayShapes.name:
        return RayShapes(size, **options)
    if name not in _FROM_FILES:
        known = (RayShapes.name, *_FROM_FILES)
        raise ValueError(
            f"name must be one of {known}, but was {name!r}; did you mean {nearest(name, known)!r}?"
        )
    if size != 64:
        raise ValueError(f"size must be 64 for {name}, but was {size}")
    if root is None:
        raise ValueError(f"root must be given for {name}: its file, or the folder that it lies in")
    return _FROM_FILES[name](root, **options)
