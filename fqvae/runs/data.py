"""The image set that a configuration names, and what a run remembers of the one that it was trained on."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fqvae.data import ImageDataset, RayShapes, open_dataset
from fqvae.data.rooms import Rooms
from fqvae.runs.config import DataConfig

_COMPARED = 16  # images that the digest of a set is made of
_AT_ONCE = 65_536  # images whose labels are read together


def open_data(data: DataConfig, root: str | Path | None = None) -> ImageDataset:
    """Open a configuration's set, with its correlated factors.

    Args:
        data: names the set.
        root: where the images are now, if not where the configuration says.

    Raises:
        Exception: what `open_dataset` raises.
    """
    options: dict[str, Any] = {}
    if pairs := data.correlated_pairs():
        options = {"correlated": pairs, "strength": data.strength}
    return open_dataset(
        data.name,
        root or data.root,
        size=data.size,
        channels=data.channels,
        resize=data.resize,
        cache=data.cache,
        arguments=data.function_arguments(),
        **options,
    )


def sized(data: DataConfig, dataset: ImageDataset) -> DataConfig:
    """The configuration, with the size and channels of the images where it leaves these to them."""
    channels, height, _ = dataset.image_shape
    return dataclasses.replace(data, size=data.size or height, channels=data.channels or channels)


def named(data: DataConfig, dataset: ImageDataset) -> DataConfig:
    """The configuration of a set that was opened already: how it is opened again, or at least its name.

    Raises:
        ValueError: the set's `reopen` gives something else than keys of `DataConfig`, a name among them.
    """
    there = {"name": dataset.name, "size": data.size, "channels": data.channels}
    keys = reopening(dataset)
    if keys is not None:
        allowed = {each.name for each in dataclasses.fields(DataConfig)}
        if "name" not in keys or not keys.keys() <= allowed:
            raise ValueError(
                f"reopen of {dataset.name} must give a name and other keys of {sorted(allowed)}, "
                f"but gave {sorted(keys)}"
            )
        if isinstance(arguments := keys.get("arguments"), Mapping):
            keys["arguments"] = json.dumps(dict(arguments))
        keys = {key: str(value) if isinstance(value, Path) else value for key, value in keys.items()}
    return DataConfig(**{**there, **(keys or {})})


def reopening(dataset: ImageDataset) -> dict[str, Any] | None:
    """The keys that open the set again; None if it does not say."""
    reopen = getattr(dataset, "reopen", None)
    keys = reopen() if callable(reopen) else reopen
    return None if keys is None else dict(keys)


def describe(dataset: ImageDataset) -> dict[str, Any]:
    """What a run remembers of its set: plain values, equal for equal images.

    name, images (how many), shape (of one), digest (SHA-256 of the pixels of a few, evenly spaced; empty for
    RayShapes, which another processor may round otherwise, and for a part of it that of its arguments),
    reopens (whether it says how it is opened again).
    """
    digest = ""
    if isinstance(dataset, Rooms):
        digest = hashlib.sha256(json.dumps(dataset.reopen(), sort_keys=True).encode()).hexdigest()
    elif not isinstance(dataset, RayShapes):
        few = np.unique(np.linspace(0, len(dataset) - 1, _COMPARED).round().astype(np.int64))
        digest = hashlib.sha256(dataset.images(few).contiguous().numpy().tobytes()).hexdigest()
    return {
        "name": dataset.name,
        "images": len(dataset),
        "shape": list(dataset.image_shape),
        "digest": digest,
        "reopens": reopening(dataset) is not None,
    }


def check_reopens(trained_on: Mapping[str, Any] | None, data: DataConfig) -> None:
    """Raise ValueError if a run was trained on a set that does not say how it is opened again.

    trained_on: the set, as `describe` tells it; None in an old run. data: the run's; where it names a
    function, that opens the set.
    """
    if trained_on is not None and not trained_on["reopens"] and ":" not in data.name:
        raise ValueError(
            f"the run was trained on {trained_on['name']!r}, a set that was given in Python and does not say "
            "how it is opened again: give it anew, as dataset= of open_run or train, or train with a set "
            "that has a method reopen (see fqvae.data.ImageDataset)"
        )


def digest_of_labels(dataset: ImageDataset) -> str:
    """SHA-256 of the factors' names, numbers of values, and values for all images; empty for RayShapes, whose
    factors are always the same."""
    if isinstance(dataset, RayShapes):
        return ""
    digest = hashlib.sha256(json.dumps([dataset.factor_names, dataset.factor_sizes]).encode())
    for start in range(0, len(dataset) if dataset.factor_names else 0, _AT_ONCE):
        index = np.arange(start, min(start + _AT_ONCE, len(dataset)))
        digest.update(dataset.factors(index).contiguous().numpy().tobytes())
    return digest.hexdigest()


def check_same(trained_on: Mapping[str, Any] | None, dataset: ImageDataset) -> None:
    """Raise ValueError unless the set has the images that the run was trained on, as far as it remembers."""
    if trained_on is None:
        return
    here = describe(dataset)
    found = {
        "images": f"has {here['images']} images, not {trained_on['images']}",
        "shape": f"has images of shape {here['shape']}, not {trained_on['shape']}",
        "digest": "has images with other pixels",
    }
    for key, text in found.items():
        if here[key] != trained_on[key]:
            raise ValueError(
                f"the run was trained on other images: {here['name']}, as it is here, {text}; "
                "name the right ones (--root PATH, or dataset= in Python)"
            )
