"""Presets: YAML files of flat keys; and files of one's own.

A preset may build on another (`base`), sets keys for all models (`all`), for those with a discriminator
(`discriminator`) and for single ones (`models`). What a model is, whatever the data, stands in
`fqvae.models.table`. Later ones win: model, base, preset, command line.
"""

from __future__ import annotations

import importlib.resources
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from fqvae.data import is_own
from fqvae.models.config import ConfigError
from fqvae.models.table import MODELS, Model
from fqvae.runs.config import RunConfig, from_flat, full_keys
from fqvae.runs.keys import did_you_mean
from fqvae.runs.words import full_key
from fqvae.runs.yaml_files import load_yaml

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

    A preset's size and channels are those of its own images: with somebody's own (`is_own`) they are left to
    the images, unless a text on top says otherwise; the size is kept if they are resized to it.

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
    given = _settings(overrides)
    values = _values(preset, MODELS[model], MODELS[model].has_discriminator, given)
    config = from_flat({**values, **given})
    if config.model.has_discriminator != MODELS[model].has_discriminator:  # by a weight that is given
        values = _values(preset, MODELS[model], config.model.has_discriminator, given)
        config = from_flat({**values, **given})
    if config.protocol == "ours":
        return config
    values |= {f"model.latent.{key}": value for key, value in MODELS[model].authors.items()}
    if not config.model.has_discriminator:
        values["steps"] = 2 * config.steps
    return from_flat({**values, **given})


def load_file(path: str | Path, model: str | None = None, overrides: Iterable[str] = ()) -> RunConfig:
    """The run that a YAML file describes, with "key=value" texts on top.

    The file has keys of a run, dotted, short, or nested in mappings. `preset: NAME` has it build on a preset;
    only then `model: NAME` says for which model. A run's config.yaml is such a file.

    Raises:
        FileNotFoundError: there is no such file. OSError: it cannot be read.
        ConfigError: it is no YAML, or a key or value in it is wrong; the message begins with the file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        content = load_yaml(path.read_bytes())
        if not isinstance(content, dict):
            raise ConfigError(f"it must be a mapping of keys to values, but was {type(content).__name__}")
        content = dict(content)
        preset = content.pop("preset", None)
        if not isinstance(content.get("model"), dict):
            model = model or content.pop("model", None)
            content.pop("model", None)
        given = full_keys(dict(_leaves("", content)))
        settings = [*(_text(key, value) for key, value in given.items()), *overrides]
        if preset is not None:
            return load_preset(str(preset), str(model or "factorqvae"), settings)
        if model is not None:
            raise ConfigError(f"the model {model!r} needs a preset: add a line 'preset: NAME'")
        return from_flat(_settings(settings))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _values(preset: str, model: Model, has_discriminator: bool, given: Mapping[str, str]) -> dict[str, Any]:
    """The keys of a preset for the images that are given."""
    values = _layers(preset, model, has_discriminator)
    if is_own(given.get("data.name", "")):
        resized = given.get("data.resize", "").lower() == "true"
        values.pop("data.channels", None)
        values = {key: value for key, value in values.items() if key != "data.size" or resized}
    return values


def _layers(preset: str, model: Model, has_discriminator: bool) -> dict[str, Any]:
    """The keys of a model, of what a preset builds on, and of the preset itself."""
    content = _read(preset)
    below = _layers(content["base"], model, has_discriminator) if "base" in content else _model_keys(model)
    keys = {**below, **content.get("all", {})}
    if has_discriminator:
        keys |= content.get("discriminator", {})
    keys |= content.get("models", {}).get(model.name, {})
    return full_keys(keys)


def _model_keys(model: Model) -> dict[str, Any]:
    return {
        "model.name": model.name,
        **{f"model.latent.{key}": value for key, value in model.latent.items()},
        **{f"model.weights.{key}": weight for key, weight in model.weights.items()},
    }


def _read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = load_yaml((_FOLDER / f"{name}.yaml").read_bytes())
    return content


def _settings(overrides: Iterable[str]) -> dict[str, str]:
    """ "key=value" texts by their dotted keys; the last one of a key wins."""
    return {full_key(key): value for key, value in map(split_setting, overrides)}


def _leaves(prefix: str, mapping: Mapping[Any, object]) -> Iterator[tuple[str, object]]:
    """The single values of mappings in each other, by their dotted keys."""
    for key, value in mapping.items():
        if not isinstance(key, str):
            raise ConfigError(f"the key {key!r} is not a text; write it in quotes")
        if isinstance(value, dict):
            yield from _leaves(f"{prefix}{key}.", value)
        else:
            yield prefix + key, value


def _text(key: str, value: object) -> str:
    """key=value, as the command line takes it."""
    if not (value is None or isinstance(value, bool | int | float | str)):
        raise ConfigError(f"{key} must be a single value, but was a {type(value).__name__}")
    return f"{key}={str(value).lower() if value is None or isinstance(value, bool) else value}"


def split_setting(override: str) -> tuple[str, str]:
    """The key and the value of a "key=value" text. Raises ConfigError for a text without "="."""
    key, equals, value = override.partition("=")
    if not equals:
        raise ConfigError(f"expected key=value, but found {override!r}")
    return key, value
