"""Presets: YAML files of flat keys.

A preset may build on another (`base`), sets keys for all models (`all`), for those with a discriminator
(`discriminator`) and for single ones (`models`). What a model is, whatever the data, stands in
`fqvae.models.table`. Later ones win: model, base, preset, command line.
"""

from __future__ import annotations

import importlib.resources
from collections.abc import Iterable
from typing import Any

from fqvae.models.config import ConfigError
from fqvae.models.table import MODELS, Model
from fqvae.runs.config import RunConfig, check_keys, from_flat
from fqvae.runs.keys import did_you_mean

_FOLDER = importlib.resources.files("fqvae") / "configs"
_SHARED = ("paper",)  # no preset by itself


def preset_names() -> list[str]:
    """The presets that there are."""
    files = [each.name for each in _FOLDER.iterdir() if each.name.endswith(".yaml")]
    return sorted(name[:-5] for name in files if name[:-5] not in _SHARED)


def model_names() -> list[str]:
    """The models, in the order of tables."""
    return list(MODELS)


def load_preset(preset: str, model: str = "factorqvae", overrides: Iterable[str] = ()) -> RunConfig:
    """The run of a preset for a model, with "key=value" texts on top.

    With "protocol=authors" among them a model without a discriminator takes twice the preset's steps, as the
    authors count optimizer steps, and the model has the codebook that theirs starts with.
    Raises ConfigError: a preset, model, key or value that does not exist, with the nearest that does.
    """
    if preset not in preset_names():
        known = preset_names()
        raise ConfigError(
            f"there is no preset {preset!r}{did_you_mean(preset, known)} There are {', '.join(known)}"
        )
    if model not in MODELS:
        known = model_names()
        raise ConfigError(
            f"there is no model {model!r}{did_you_mean(model, known)} There are {', '.join(known)}"
        )
    values, given = _layers(preset, MODELS[model]), dict(map(_split, overrides))
    config = from_flat({**values, **given})
    if config.protocol == "ours":
        return config
    values |= {f"model.latent.{key}": value for key, value in MODELS[model].authors.items()}
    if not config.model.has_discriminator:
        values["steps"] = 2 * config.steps
    return from_flat({**values, **given})


def _layers(preset: str, model: Model) -> dict[str, Any]:
    """The keys of a model, of what a preset builds on, and of the preset itself."""
    content = _read(preset)
    below = _layers(content["base"], model) if "base" in content else _model_keys(model)
    keys = {**below, **content.get("all", {})}
    if model.has_discriminator:
        keys |= content.get("discriminator", {})
    keys |= content.get("models", {}).get(model.name, {})
    check_keys(keys)
    return keys


def _model_keys(model: Model) -> dict[str, Any]:
    return {
        "model.name": model.name,
        **{f"model.latent.{key}": value for key, value in model.latent.items()},
        **{f"model.weights.{key}": weight for key, weight in model.weights.items()},
    }


def _read(name: str) -> dict[str, Any]:
    import yaml  # not at the top: a trained model loads without it

    content: dict[str, Any] = yaml.safe_load((_FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    return content


def _split(override: str) -> tuple[str, str]:
    key, equals, value = override.partition("=")
    if not equals:
        raise ConfigError(f"expected key=value, but found {override!r}")
    return key, value
