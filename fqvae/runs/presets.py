"""Presets: YAML files of flat keys, and what each of the nine models changes.

A preset may build on another (`base`), sets keys for all models (`all`) and for single ones (`models`). What
a model is, whatever the data, stands in `models.yaml`. Later ones win: model, base, preset, command line.
"""

from __future__ import annotations

import importlib.resources
from collections.abc import Iterable
from typing import Any

from fqvae.models.config import ConfigError
from fqvae.runs.config import RunConfig, check_keys, from_flat
from fqvae.runs.keys import did_you_mean

_FOLDER = importlib.resources.files("fqvae") / "configs"
_SHARED = ("models", "paper")  # not presets by themselves


def preset_names() -> list[str]:
    """The presets that there are."""
    files = [each.name for each in _FOLDER.iterdir() if each.name.endswith(".yaml")]
    return sorted(name[:-5] for name in files if name[:-5] not in _SHARED)


def model_names() -> list[str]:
    """The nine models, in the paper's order."""
    return list(_read("models"))


def load_preset(preset: str, model: str = "factorqvae", overrides: Iterable[str] = ()) -> RunConfig:
    """The run of a preset for a model, with "key=value" texts on top.

    Raises ConfigError: a preset, model, key or value that does not exist, with the nearest that does.
    """
    if preset not in preset_names():
        known = preset_names()
        raise ConfigError(
            f"there is no preset {preset!r}{did_you_mean(preset, known)} There are {', '.join(known)}"
        )
    if model not in model_names():
        known = model_names()
        raise ConfigError(
            f"there is no model {model!r}{did_you_mean(model, known)} There are {', '.join(known)}"
        )
    values = {**_layers(preset, model), **dict(map(split_setting, overrides))}
    return from_flat(values)


def model_name(config: RunConfig) -> str:
    """Which of the nine models a run is, by its parts; "vector" or "custom" for one that is none of them."""
    latent, weights = config.model.latent, config.model.weights
    factor = "factor" if config.model.has_discriminator else ""
    if latent.kind == "vector":
        return "vector"
    if latent.kind == "plain":
        penalised = weights.nonnegativity > 0 or weights.activity > 0
        return "custom" if factor else "bioae" if penalised else "ae"
    if latent.estimator == "nearest":
        return "qlae" if latent.codebooks == "per_latent" else "custom"
    return factor + {"gaussian": "vae", "logits": "dvae", "scalar": "qvae"}[latent.kind]


def _layers(preset: str, model: str) -> dict[str, Any]:
    """The keys of a preset and of those it builds on."""
    content = _read(preset)
    below = _layers(content["base"], model) if "base" in content else _read("models")[model]
    keys = {**below, **content.get("all", {}), **content.get("models", {}).get(model, {})}
    check_keys(keys)
    return keys


def _read(name: str) -> dict[str, Any]:
    import yaml  # not at the top: a trained model loads without it

    content: dict[str, Any] = yaml.safe_load((_FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    return content


def split_setting(override: str) -> tuple[str, str]:
    """The key and the value of a "key=value" text. Raises ConfigError for a text without "="."""
    key, equals, value = override.partition("=")
    if not equals:
        raise ConfigError(f"expected key=value, but found {override!r}")
    return key, value
