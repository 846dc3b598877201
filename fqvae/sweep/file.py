"""A sweep file (YAML) lists configurations and seeds:

    preset: smoke                  # what `fqvae train` knows
    seeds: [0, 1]
    settings:                      # for all runs: the keys of a run's config.yaml; may be left out
      steps: 2000
    evaluate:                      # options of `fqvae evaluate`; may be left out, as may each of them
      train: 10000
      test: 5000
      classifier: boosting
    runs:                          # a name, which is also a folder's, and what is its own
      factorqvae: {model: factorqvae}
      gamma 0: {model: factorqvae, model.weights.total_correlation: 0}
    grid:                          # a run for each combination; besides runs, or instead of them
      model.weights.total_correlation: [1e-4, 1e-3]
      model.latent.codebook_size: [32, 64]

Every run is trained with every seed. A run's own keys win over `settings`; without `model` it is factorqvae.
The command line's key=value are settings for all runs, and win over the file's.
"""

from __future__ import annotations

import importlib.resources
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fqvae.models.config import ConfigError
from fqvae.runs.config import RunConfig, differences
from fqvae.runs.keys import build, did_you_mean
from fqvae.runs.presets import load_preset, split_setting
from fqvae.runs.words import full_key
from fqvae.runs.yaml_files import load_yaml
from fqvae.sweep.grid import expand

if TYPE_CHECKING:
    from fqvae.evaluation.options import Options

_FOLDER = importlib.resources.files("fqvae") / "configs" / "sweeps"
_KEYS = ("preset", "seeds", "settings", "evaluate", "runs", "grid")
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9 ._+-]{0,62}[A-Za-z0-9_+-])?")
RESULTS = ("comparison.md", "comparison.csv", "comparison.html")  # in the folder of a sweep
PLOT = "comparison-"  # what the names of plots begin with
RECORD = "sweep.yaml"
LOCK = "sweep.lock"
_TAKEN = (*RESULTS, RECORD, LOCK)


@dataclass(frozen=True)
class Entry:
    """A configuration of a sweep: what `fqvae train` needs besides preset and seed."""

    model: str
    settings: tuple[str, ...]


@dataclass(frozen=True)
class Sweep:
    """A sweep file, read and checked. name: the file's, without its ending."""

    name: str
    preset: str
    seeds: tuple[int, ...]
    evaluate: Options
    runs: dict[str, Entry]


@dataclass(frozen=True)
class Changes:
    """What the command line changes in a sweep file; None: nothing.

    preset, seeds: instead of the file's. model: of all runs. settings: "key=value" texts for all runs.
    protocol: of training and of evaluation; see docs/protocol.md.
    """

    preset: str | None = None
    model: str | None = None
    seeds: tuple[int, ...] | None = None
    settings: tuple[str, ...] = ()
    protocol: str | None = None


def sweep_names() -> list[str]:
    """The sweeps that come with the package."""
    return sorted(each.name[:-5] for each in _FOLDER.iterdir() if each.name.endswith(".yaml"))


def read_sweep(name_or_path: str | Path, changes: Changes | None = None) -> Sweep:
    """Read a sweep that comes with the package, or a file.

    Args:
        name_or_path: a name of `sweep_names`, or a file's path.
        changes: what is to be different from the file.

    Raises:
        FileNotFoundError: no such sweep or file. OSError: it cannot be read.
        ConfigError: it is no sweep file; a key or value in it or in the changes is wrong; the changes set
            what a run has for itself. The message begins with the file.
    """
    name, known = str(name_or_path), sweep_names()
    if name in known:
        text = (_FOLDER / f"{name}.yaml").read_bytes()
    elif Path(name).is_file():
        text = Path(name).read_bytes()
    elif "/" in name or name.endswith((".yaml", ".yml")):
        raise FileNotFoundError(f"there is no sweep file {name}")
    else:
        raise FileNotFoundError(
            f"there is no sweep {name!r}{did_you_mean(name, known)} There are {', '.join(known)}; "
            "a file of your own is given by its path"
        )
    try:
        return _parse(Path(name).stem, load_yaml(text), changes or Changes())
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from error


def _parse(name: str, content: Any, changes: Changes) -> Sweep:
    content = dict(_mapping("a sweep file", content))
    _check_known("", content, _KEYS)
    content |= {
        key: value
        for key, value in (("preset", changes.preset), ("seeds", changes.seeds))
        if value is not None
    }
    for key in ("preset", "seeds"):
        if key not in content:
            raise ConfigError(f"the key {key!r} is missing")
    runs = _runs(content)
    given = _given(changes, runs)
    settings = {**_full("settings", _mapping("settings", content.get("settings", {}))), **given}
    evaluate = dict(_mapping("evaluate", content.get("evaluate", {})))
    if changes.protocol is not None:
        evaluate["protocol"] = "authors" if changes.protocol == "authors" else "held-out"
    sweep = Sweep(
        name,
        str(content["preset"]),
        _seeds(content["seeds"]),
        _options(evaluate),
        {run: _entry(f"runs, {run!r}", settings, own) for run, own in runs.items()},
    )
    _check_names(sweep.runs)
    _check_configurations(sweep)
    return sweep


def _runs(content: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The runs that are listed, then those of the grid, each with its own keys."""
    if "runs" not in content and "grid" not in content:
        raise ConfigError("the key 'runs' is missing, and so is 'grid'")
    listed = _mapping("runs", content.get("runs", {}))
    runs = {name: _mapping(f"runs, {name!r}", own) for name, own in listed.items()}
    if "grid" in content:
        grid = expand(_mapping("grid", content["grid"]))
        if twice := runs.keys() & grid.keys():
            raise ConfigError(f"runs and grid both have a run {min(twice)!r}")
        runs |= grid
    return {name: _full(f"runs, {name!r}", keys) for name, keys in runs.items()}


def _full(where: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values by dotted keys, which short names stand for."""
    full: dict[str, Any] = {}
    for key, value in values.items():
        if full_key(key) in full:
            raise ConfigError(
                f"{where}: {full_key(key)} is there twice, also by its short name; leave one out"
            )
        full[full_key(key)] = value
    return full


def _given(changes: Changes, runs: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """The changed settings by key, the model among them."""
    given = _full("the settings", dict(map(split_setting, changes.settings)))
    if changes.protocol is not None:
        given["protocol"] = changes.protocol
    if "seed" in given:
        raise ConfigError("'seed' is no setting of a sweep; give its seeds as --seeds 0,1,2")
    if changes.model is not None:
        given["model"] = changes.model
    for key, value in given.items():
        if own := [name for name, keys in runs.items() if key in keys]:
            raise ConfigError(f"{key}={value} cannot be for all runs: {own[0]!r} has a {key} of its own")
    return given


def _mapping(what: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"{what} must be a mapping of keys to values, but was {value!r}")
    for key in value:
        if not isinstance(key, str):
            raise ConfigError(f"{what}: the key {key!r} is not a text; write it in quotes")
    return value


def _check_known(prefix: str, keys: Iterable[str], known: Iterable[str]) -> None:
    for key in keys:
        if key not in known:
            raise ConfigError(f"unknown key {prefix + key!r}{did_you_mean(key, known)}")


def _options(values: Mapping[str, Any]) -> Options:
    from fqvae.evaluation.options import Options  # takes seconds to import: not for a list of commands

    _check_known("evaluate.", values, [each.name for each in fields(Options)])
    prefix = "evaluate."
    try:
        options: Options = build(Options, {prefix + key: value for key, value in values.items()}, prefix)
    except ConfigError:
        raise
    except ValueError as error:  # it begins with the name of the option
        raise ConfigError(f"evaluate.{error}") from error
    return options


def _seeds(value: Any) -> tuple[int, ...]:
    numbers = value if isinstance(value, list | tuple) else []
    if not numbers or any(type(each) is not int or each < 0 for each in numbers):
        raise ConfigError(f"seeds must be a list of whole numbers, at least 0, but was {value!r}")
    if len(set(numbers)) < len(numbers):
        raise ConfigError(f"seeds must be different ones, but were {value!r}")
    return tuple(numbers)


def _entry(where: str, settings: Mapping[str, Any], own: Mapping[str, Any]) -> Entry:
    keys = {**settings, **own}
    model = keys.pop("model", "factorqvae")
    if "seed" in keys:
        raise ConfigError(f"{where}: 'seed' is no setting of a sweep; its seeds stand under 'seeds'")
    return Entry(str(model), tuple(_word(where, key, value) for key, value in keys.items()))


def _word(where: str, key: str, value: Any) -> str:
    """key=value, as the command line takes it."""
    if value is None:
        return f"{key}=none"
    if not isinstance(value, bool | int | float | str):
        raise ConfigError(f"{where}: {key} must be a single value, but was {value!r}")
    return f"{key}={str(value).lower() if isinstance(value, bool) else value}"


def _check_names(names: Iterable[str]) -> None:
    """Names are folders', on any file system."""
    seen: dict[str, str] = {}
    for name in names:
        taken = name.lower() in _TAKEN or name.lower().startswith(PLOT)
        if not _NAME.fullmatch(name) or taken:
            raise ConfigError(
                f"runs: {name!r} cannot be the name of a folder here; allowed are up to 64 letters, digits, "
                f"blanks and ._+- with a letter or digit first, but not {', '.join(_TAKEN)}, {PLOT}*"
            )
        if name.lower() in seen:
            raise ConfigError(f"runs: {seen[name.lower()]!r} and {name!r} differ only in capital letters")
        seen[name.lower()] = name
    if not seen:
        raise ConfigError("runs must name at least one run")


def _check_configurations(sweep: Sweep) -> None:
    """Each must exist, no two be the same, and all of one image set: else there is no table of them."""
    made: dict[str, RunConfig] = {}
    for name, entry in sweep.runs.items():
        try:
            made[name] = load_preset(sweep.preset, entry.model, entry.settings)
        except ConfigError as error:
            raise ConfigError(f"runs, {name!r}: {error}") from error
        for other in list(made)[:-1]:
            if not differences(made[name], made[other]):
                raise ConfigError(f"runs: {other!r} and {name!r} are the same configuration")
            sets = [f"{data.name}, size {data.size}" for data in (made[other].data, made[name].data)]
            if sets[0] != sets[1]:
                raise ConfigError(
                    f"runs: {other!r} and {name!r} cannot be compared: their images are {' and '.join(sets)}"
                )
