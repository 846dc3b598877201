"""The image set that a configuration names."""

from __future__ import annotations

from pathlib import Path

from fqvae.data import ImageDataset, open_dataset
from fqvae.runs.config import DataConfig


def open_data(data: DataConfig, root: str | Path | None = None) -> ImageDataset:
    """Open a configuration's set, with its correlated factors.

    Args:
        data: names the set.
        root: where the images are now, if not where the configuration says.

    Raises:
        Errors of `open_dataset`.
    """
    options = {"correlated": pairs, "strength": data.strength} if (pairs := data.correlated_pairs()) else {}
    return open_dataset(data.name, root or data.root, size=data.size, **options)
