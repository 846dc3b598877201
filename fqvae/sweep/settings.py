"""The settings in which the runs of a sweep differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fqvae.runs import to_flat
from fqvae.runs.presets import load_preset
from fqvae.runs.words import full_key
from fqvae.sweep.file import Sweep


def swept(sweep: Sweep, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Each setting in which the runs of these names differ, with its value in each run: {key: {name: value}}.

    Only settings that the sweep names, "model" among them, count: not what a model's preset makes of them. A
    setting that follows from another one, as half the batch size from gamma = 0, is left out.
    """
    values: dict[str, dict[str, Any]] = {"model": {name: sweep.runs[name].model for name in names}}
    for name in names:
        entry = sweep.runs[name]
        flat = to_flat(load_preset(sweep.preset, entry.model, entry.settings))
        for each in names:
            for word in sweep.runs[each].settings:
                key = full_key(word.partition("=")[0])
                values.setdefault(key, {})[name] = flat[key]
    keys = [key for key, column in values.items() if len(set(column.values())) > 1]
    for key in reversed(keys):
        if any(_follows(values[key], values[other]) for other in keys if other != key):
            keys = [each for each in keys if each != key]
    return {key: values[key] for key in keys}


def _follows(column: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether runs that are equal in the other setting are equal in this one."""
    return len({(other[name], value) for name, value in column.items()}) == len(set(other.values()))
