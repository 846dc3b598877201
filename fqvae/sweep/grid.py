"""The runs that a sweep file's `grid` stands for: one for each combination of values."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

from fqvae.models.config import ConfigError

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9 ._+-]+")


def expand(grid: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Every combination of the grid's values, by a name made of keys and values; the last key changes first.

    A key is named by what follows its last dot, or whole where two would be named alike; a model by its name.

    Args:
        grid: lists of values by the keys of a run's config.yaml, or by "model".

    Raises:
        ConfigError: a key without a list of values, or with a value twice; values whose names are alike.
    """
    for key, values in grid.items():
        if not isinstance(values, list) or not values:
            raise ConfigError(f"grid: {key} must be a list of values, but was {values!r}")
        if any(values.count(value) > 1 for value in values):
            raise ConfigError(f"grid: {key} must have different values, but had {values!r}")
    labels = short_names(list(grid))
    runs: dict[str, dict[str, Any]] = {}
    for combination in itertools.product(*grid.values()):
        keys = dict(zip(grid, combination, strict=True))
        name = " ".join(_part(labels[key], value) for key, value in keys.items())
        if name in runs:
            raise ConfigError(
                f"grid: {runs[name]} and {keys} would both be named {name!r}; list them as runs"
            )
        runs[name] = keys
    return runs


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """The part of each key that follows its last dot, or the whole key where two parts are equal."""
    ends = [key.rsplit(".", 1)[-1] for key in keys]
    return {key: end if ends.count(end) == 1 else key for key, end in zip(keys, ends, strict=True)}


def _part(label: str, value: Any) -> str:
    text = _NOT_IN_NAMES.sub("-", "none" if value is None else str(value))
    return text if label == "model" else f"{label} {text}"
