"""Image sets: one is rendered here, three published ones and anybody's own are read from files.

All have the face of `ImageDataset`: images stay uint8, and a batch is one gather by number. Where there is an
image for every combination of the factors' values, factors translate into numbers as well: `FactorDataset`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fqvae.data.arrays import ArrayImages
from fqvae.data.factors import FactorDataset, ImageDataset, has_full_grid, nearest
from fqvae.data.folder import FolderImages
from fqvae.data.isaac3d import Isaac3D
from fqvae.data.mpi3d import MPI3DComplex
from fqvae.data.opener import open_by_function, opener
from fqvae.data.rayshapes import RayShapes
from fqvae.data.shapes3d import Shapes3D
from fqvae.data.splits import Splits, split

__all__ = [
    "ArrayImages",
    "FactorDataset",
    "FolderImages",
    "ImageDataset",
    "Isaac3D",
    "MPI3DComplex",
    "RayShapes",
    "Shapes3D",
    "Splits",
    "has_full_grid",
    "is_own",
    "open_dataset",
    "opener",
    "split",
]

_PUBLISHED: dict[str, Callable[..., FactorDataset]] = {
    kind.name: kind for kind in (Shapes3D, Isaac3D, MPI3DComplex)
}
_OWN: dict[str, Callable[..., ImageDataset]] = {kind.name: kind for kind in (ArrayImages, FolderImages)}
_ROOTS = {
    **{
        kind.name: f"{kind.original}, or the folder that it lies in"
        for kind in (Shapes3D, Isaac3D, MPI3DComplex)
    },
    ArrayImages.name: "an npz file with images, and factors if they are known",
    FolderImages.name: "a folder of PNG or JPEG files, with labels.csv if their factors are known",
}


def is_own(name: str) -> bool:
    """Whether a set of this name has images of any size: "arrays", "folder" or "package.module:function"."""
    return name in _OWN or ":" in name


def open_dataset(
    name: str,
    root: str | Path | None = None,
    *,
    size: int = 0,
    channels: int = 0,
    resize: bool = False,
    cache: str | Path | None = None,
    arguments: Mapping[str, Any] | None = None,
    **options: Any,
) -> ImageDataset:
    """A set by its name.

    Args:
        name: "rayshapes", "shapes3d", "isaac3d", "mpi3d_complex", "arrays", "folder", or
            "package.module:function" for a set that somebody else's code opens; see `opener`.
        root: the file, or the folder that it lies in. RayShapes needs none and ignores it.
        size: height and width of the images; 0: the set's own, which are 64 for those with a name. RayShapes
            may have 32.
        channels: 1 or 3; 0: the set's own.
        resize: "arrays" and "folder" only: resize the images to `size`.
        cache: folder for converted images, when they shall not lie beside the original.
        arguments: of the function.
        options: of the set's class, by name.

    Raises:
        ValueError: an unknown name, a size or number of channels that the set does not have, no root.
        TypeError: an option that the class does not have.
        Exception: what the class or function raises.
    """
    if resize and name not in _OWN:
        raise ValueError(f"resize is for {' and '.join(_OWN)} only, but name was {name!r}; leave it out")
    if arguments and ":" not in name:
        raise ValueError(f"arguments are for package.module:function only, but name was {name!r}")
    if ":" in name:
        expanded = None if root is None else os.path.expanduser(root)
        dataset = open_by_function(name, expanded, arguments or {})
        if size and tuple(dataset.image_shape[1:]) != (size, size):
            raise ValueError(f"size must be that of {name}, {tuple(dataset.image_shape)}, but was {size}")
        return _with_channels(dataset, channels)
    if name == RayShapes.name:
        return _with_channels(RayShapes(size or 64, **options), channels)
    if name not in (*_PUBLISHED, *_OWN):
        known = (RayShapes.name, *_PUBLISHED, *_OWN)
        raise ValueError(
            f"name must be one of {known} or package.module:function, but was {name!r}; "
            f"did you mean {nearest(name, known)!r}?"
        )
    if root is None:
        raise ValueError(f"root must be given for {name}: data.root=PATH, {_ROOTS[name]}")
    if name in _OWN:
        return _OWN[name](root, size=size, channels=channels, resize=resize, cache=cache, **options)
    if size not in (0, 64):
        raise ValueError(f"size must be 64 for {name}, but was {size}")
    return _with_channels(_PUBLISHED[name](root, cache=cache, **options), channels)


def _with_channels(dataset: ImageDataset, channels: int) -> ImageDataset:
    """The set, whose channels these are; 0: any."""
    own = dataset.image_shape[0]
    if channels not in (0, own):
        raise ValueError(f"channels must be those of {dataset.name}, {own}, but was {channels}")
    return dataset
