"""Sets that somebody else's code opens, named as package.module:function."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from fqvae.data.factors import ImageDataset

_Opens = TypeVar("_Opens", bound=Callable[..., Any])


def opener(function: _Opens) -> _Opens:
    """Mark a function, or a class, that gives an `ImageDataset`: then it may be named in a configuration.

    The mark is needed because a configuration may come with somebody else's run: it shall name what opens
    images, and nothing else, such as `os:system`.

        @fqvae.data.opener
        def squares(root=None, *, count=1000): ...

    is opened by data.name=package.module:squares, with data.root=PATH if there is one, which is the first
    argument, and data.arguments='{"count": 500}'.
    """
    function.opens_images = True  # type: ignore[attr-defined]
    return function


def open_by_function(name: str, root: str | Path | None, arguments: Mapping[str, Any]) -> ImageDataset:
    """The set that a marked function gives.

    Args:
        name: package.module:function.
        root: the first argument, if there is one.
        arguments: the others, by name.

    Raises:
        ValueError: no such function, or one without the mark.
        TypeError: no images from it.
        Exception: what the function raises.
    """
    module, _, attribute = name.partition(":")
    try:
        function: Any = importlib.import_module(module)
        for part in attribute.split("."):
            function = getattr(function, part)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise ValueError(
            f"name must be package.module:function, one that can be imported, but was {name!r} ({error}); "
            "the folder of a module of your own belongs in PYTHONPATH"
        ) from error
    if not callable(function) or getattr(function, "opens_images", None) is not True:
        raise ValueError(f"name was {name!r}, which is not marked with fqvae.data.opener")
    dataset = function(*(() if root is None else (root,)), **arguments)
    missing = [
        part
        for part in ("name", "factor_names", "factor_sizes", "image_shape", "images", "factors")
        if not hasattr(dataset, part)
    ]
    if missing:
        raise TypeError(f"{name} must give an ImageDataset, but it has no {missing[0]}")
    opened: ImageDataset = dataset
    return opened
