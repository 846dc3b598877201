"""Which setting each model gets: the best of its grid by the mean of disentanglement (D) and InfoM.

A sweep of the package, once trained, gives a file beside the results, and that a preset (`GRIDS`).
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from fqvae.evaluation import read_evaluation
from fqvae.models.table import MODELS
from fqvae.runs.yaml_files import load_yaml
from fqvae.sweep import Sweep, plan
from rayshapes_runs.store import Store


@dataclass(frozen=True)
class Grid:
    """What comes of a sweep of settings.

    preset: its name. file: what was chosen, beside the results. steps: of the preset; None: as smoke.
    """

    preset: str
    file: str
    steps: int | None = None


GRIDS = {
    "choose": Grid("rayshapes", "chosen.yaml"),
    "choose_long": Grid("rayshapes_long", "chosen_long.yaml", 12_000),
}
CRITERION = ("disentanglement", "infom")  # whose mean is the score
SHOWN = (*CRITERION, "mse")
_TEXT = """# The setting of its grid that each model gets: that with the largest score, the mean of D and
# InfoM over the seeds. Written by: python benchmarks/rayshapes.py choose
"""
_PRESET_TEXT = """\
# As smoke, with weights of each model that were chosen on RayShapes. Written by: benchmarks/rayshapes.py
"""
_NOTHING = "# Nothing is chosen yet: these are the weights of smoke."


@dataclass(frozen=True)
class Choice:
    """A model's setting.

    name: of the run. settings: its keys and their values as texts. grid: for each run of the model its score,
    the sample standard deviation of that over the seeds, and the means of `SHOWN`, the best first.
    """

    name: str
    settings: dict[str, str]
    grid: dict[str, dict[str, float]]


def choose(sweep: Sweep, store: Store) -> dict[str, Choice]:
    """The choice of each model of a sweep, of equal scores the one that the sweep lists first.

    Raises:
        ValueError: results that are missing, or of another configuration; a damaged file.
    """
    values: dict[str, list[dict[str, float]]] = {name: [] for name in sweep.runs}
    missing = []
    for job in plan(sweep, store.folder):
        if not store.has(job, sweep.evaluate):
            missing.append(job.title)
            continue
        values[job.name].append(read_evaluation(store.place(job))["scores"])
    if missing:
        raise ValueError(
            f"{len(missing)} runs of {sweep.name} are missing in {store.folder}, {missing[0]} among them"
        )
    grids: dict[str, dict[str, dict[str, float]]] = {}
    for name, scores in values.items():
        by_seed = [statistics.fmean(seed[each] for each in CRITERION) for seed in scores]
        grids.setdefault(sweep.runs[name].model, {})[name] = {
            "score": statistics.fmean(by_seed),
            "deviation": statistics.stdev(by_seed) if len(by_seed) > 1 else 0.0,
            **{each: statistics.fmean(seed[each] for seed in scores) for each in SHOWN},
        }
    choices = {}
    for model, grid in grids.items():
        ordered = sorted(grid, key=lambda name: -grid[name]["score"])
        words = sweep.runs[ordered[0]].settings
        settings = dict(word.split("=", 1) for word in words)
        choices[model] = Choice(ordered[0], settings, {name: grid[name] for name in ordered})
    return choices


def chosen_text(choices: Mapping[str, Choice]) -> str:
    """The file of what was chosen."""
    content = {
        model: {
            "chosen": choice.name,
            "settings": choice.settings,
            "grid": {
                name: {key: float(f"{value:.4g}") for key, value in scores.items()}
                for name, scores in choice.grid.items()
            },
        }
        for model, choice in choices.items()
    }
    return _TEXT + yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=110)


def read_chosen(path: Path) -> dict[str, Choice]:
    """The choices in such a file; none where there is none. Raises ValueError, OSError."""
    if not path.exists():
        return {}
    content = load_yaml(path.read_bytes())
    return {
        model: Choice(each["chosen"], dict(each["settings"]), each["grid"]) for model, each in content.items()
    }


def preset_text(choices: Mapping[str, Choice], steps: int | None = None) -> str:
    """The file of a preset, all of whose runs have so many steps; without choices that of smoke's weights."""
    lines = ["base: smoke"] if choices else [_NOTHING, "base: smoke"]
    lines += [f"all: {{steps: {steps}}}"] if steps else []
    lines += ["models:"] if choices else ["models: {}"]
    for model in (each for each in MODELS if each in choices):
        own = {key: value for key, value in choices[model].settings.items() if not steps or key != "steps"}
        lines.append(_line(model, own))
    return _PRESET_TEXT + "\n".join(lines) + "\n"


def _line(model: str, settings: Mapping[str, str]) -> str:
    keys = "".join(f"\n    {key}: {value}" for key, value in settings.items())
    return f"  {model}:{keys or ' {}'}"
