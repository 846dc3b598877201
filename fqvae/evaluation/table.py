"""Runs beside each other: mean and standard deviation over seeds, in the layout of arXiv 2409.14851."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fqvae.evaluation.scores import read_evaluation
from fqvae.models.table import CUSTOM, MODELS

COLUMNS = {
    "D": "disentanglement",
    "C": "completeness",
    "I": "informativeness",
    "InfoM": "infom",
    "InfoC": "infoc",
    "InfoE": "infoe",
    "MSE": "mse",
}
# Keys that make no other configuration.
_IGNORED = ("seed", "data.root")


@dataclass(frozen=True)
class Line:
    """Runs that are equal but for their seed.

    name: the model's, and the settings that tell it from others of that name. seeds: of training.
    mean, deviation: by the names of scores; the sample standard deviation (n - 1), None for a single seed.
    """

    name: str
    seeds: tuple[int, ...]
    mean: dict[str, float]
    deviation: dict[str, float | None]


@dataclass(frozen=True)
class Comparison:
    """Lines of a table, and under which conditions all of them were measured."""

    lines: tuple[Line, ...]
    conditions: str

    def markdown(self) -> str:
        """A table in Markdown: mean ± standard deviation of the paper's scores."""
        rows = [["model", "seeds", *COLUMNS], ["---", *["---:"] * (len(COLUMNS) + 1)]]
        rows += [
            [line.name, str(len(line.seeds)), *(_cell(line, score) for score in COLUMNS.values())]
            for line in self.lines
        ]
        table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
        return f"{table}\n\n{self.conditions}\n"

    def csv(self) -> str:
        """All scores, with full precision; empty where there is none."""
        names = list(dict.fromkeys(score for line in self.lines for score in line.mean))
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["model", "seeds", *(f"{name} {part}" for name in names for part in ("mean", "std"))])
        for line in self.lines:
            values = (part.get(name) for name in names for part in (line.mean, line.deviation))
            writer.writerow([line.name, len(line.seeds), *values])
        return text.getvalue()


def comparison(folders: Sequence[str | Path]) -> Comparison:
    """Put evaluated runs in one table: a line for each configuration, in the paper's order of models.

    Raises:
        FileNotFoundError: a run that was not evaluated.
        ValueError: no run; the same configuration and seed twice; other sample sizes, classifiers, orders of
            codes or data sets, whose scores cannot be compared; a damaged metrics.json.
    """
    if not folders:
        raise ValueError("folders must name at least one run, but was empty")
    read = {Path(folder): read_evaluation(folder) for folder in folders}
    first, *others = read
    for folder in others:
        _check_comparable(first, read[first], folder, read[folder])

    groups: dict[str, dict[int, Path]] = {}
    for folder, content in read.items():
        config = {key: value for key, value in content["config"].items() if key not in _IGNORED}
        key = json.dumps([config, content["checkpoint"]["step"]], sort_keys=True)
        group, seed = groups.setdefault(key, {}), content["config"]["seed"]
        if seed in group:
            raise ValueError(
                f"{group[seed]} and {folder} have the same configuration and the same seed, {seed}"
            )
        group[seed] = folder
    order = [*MODELS, CUSTOM.name]
    grouped = sorted(
        groups.values(), key=lambda group: order.index(read[next(iter(group.values()))]["model"])
    )
    names = _names([read[next(iter(group.values()))] for group in grouped])
    lines = tuple(
        _line(name, {seed: read[folder]["scores"] for seed, folder in sorted(group.items())})
        for name, group in zip(names, grouped, strict=True)
    )
    return Comparison(
        lines, f"{conditions(read[first])}; mean ± sample standard deviation over the seeds of training."
    )


def scores_text(content: dict[str, Any]) -> str:
    """The scores of one run in two columns. content: as `read_evaluation` gives it."""
    width = max(map(len, content["scores"]))
    lines = [f"  {name:{width}}  {_number(name, score)}" for name, score in content["scores"].items()]
    total = sum(content["seconds"].values())
    return "\n".join(
        [
            f"{content['model']} at step {content['checkpoint']['step']} of {content['config']['steps']}",
            conditions(content),
            *lines,
            f"measured in {total:.0f} s, of which {content['seconds']['dci']:.0f} s for DCI",
        ]
    )


def conditions(content: dict[str, Any]) -> str:
    """How a run was measured: data set, sample sizes, classifier, order of codes."""
    data, options = content["data"], content["options"]
    return (
        f"{data['name']}, {data['size']} x {data['size']} pixels; {options['train']} training and "
        f"{options['test']} test samples; DCI by {options['classifier']}; codes by {options['order']}"
    )


def _check_comparable(first: Path, one: dict[str, Any], second: Path, other: dict[str, Any]) -> None:
    for part, keys in (("options", ("train", "test", "classifier", "order")), ("data", ("name", "size"))):
        for key in keys:
            if one[part][key] != other[part][key]:
                raise ValueError(
                    f"{first} and {second} cannot be compared: {part}.{key} was {one[part][key]!r} for the "
                    f"first and {other[part][key]!r} for the second"
                )


def _names(contents: Sequence[dict[str, Any]]) -> list[str]:
    """The models' names, with the settings that differ among configurations of the same name."""
    names = []
    for content in contents:
        config, step = content["config"], content["checkpoint"]["step"]
        alike = [each["config"] for each in contents if each["model"] == content["model"]]
        differing = [
            key
            for key in config
            if key not in _IGNORED and any(each.get(key) != config[key] for each in alike)
        ]
        ends = [key.rsplit(".", 1)[-1] for key in differing]
        labels = [
            f"{end if ends.count(end) == 1 else key}={config[key]}"
            for key, end in zip(differing, ends, strict=True)
        ]
        if step != config["steps"]:
            labels.append(f"(step {step} of {config['steps']})")
        names.append(" ".join([content["model"], *labels]))
    return names


def _line(name: str, scores: dict[int, dict[str, float]]) -> Line:
    """Of the scores by seed."""
    all_ = list(scores.values())
    values = {name: [each[name] for each in all_] for name in all_[0] if all(name in each for each in all_)}
    return Line(
        name,
        tuple(scores),
        {name: float(np.mean(column)) for name, column in values.items()},
        {name: float(np.std(column, ddof=1)) if len(column) > 1 else None for name, column in values.items()},
    )


def _cell(line: Line, score: str) -> str:
    mean, deviation = line.mean[score], line.deviation[score]
    if deviation is None:
        return _number(score, mean)
    return f"{_number(score, mean)} ± {_number(score, deviation)}"


def _number(score: str, value: float) -> str:
    return f"{value:.3g}" if score == "mse" else f"{value:.3f}"
