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

from fqvae.evaluation.files import read_evaluation
from fqvae.evaluation.measures import headlines, measure
from fqvae.evaluation.options import shortened
from fqvae.models.table import CUSTOM, MODELS
from fqvae.runs.config import NO_SETTINGS

_SEVERAL_SETS = "Caution: runs of other data.arguments were measured on other images."


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
    """Lines of a table, under which conditions all of them were measured, and what to beware of."""

    lines: tuple[Line, ...]
    conditions: str
    cautions: tuple[str, ...] = ()

    def markdown(self) -> str:
        """A table in Markdown: mean ± standard deviation of the headline measures.

        Without labels there are few of those, and the table shows all measures there are.
        """
        shown = headlines({name: None for line in self.lines for name in line.mean})
        rows = [
            ["model", "seeds", *(each.short or each.name for each in shown)],
            ["---", *["---:"] * (len(shown) + 1)],
        ]
        rows += [
            [line.name, str(len(line.seeds)), *(_cell(line, each.name) for each in shown)]
            for line in self.lines
        ]
        table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
        return "\n\n".join([table, self.conditions, *self.cautions]) + "\n"

    def csv(self) -> str:
        """All measures, with full precision; empty where there is none."""
        names = list(dict.fromkeys(score for line in self.lines for score in line.mean))
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["model", "seeds", *(f"{name} {part}" for name in names for part in ("mean", "std"))])
        for line in self.lines:
            values = (part.get(name) for name in names for part in (line.mean, line.deviation))
            writer.writerow([line.name, len(line.seeds), *values])
        return text.getvalue()


def comparison(folders: Sequence[str | Path], *, several_sets: bool = False) -> Comparison:
    """Put evaluated runs in one table: a line for each configuration, in the paper's order of models.

    several_sets: the runs may have been measured on other images of a set of one name, as a sweep over
        data.arguments has them; a caution says so.

    Raises:
        FileNotFoundError: a run that was not evaluated.
        ValueError: no run; the same configuration and seed twice; other sample sizes, classifiers, orders of
            codes, protocols or data sets, whose measures cannot be compared; a damaged metrics.json.
    """
    if not folders:
        raise ValueError("folders must name at least one run, but was empty")
    read = {Path(folder): read_evaluation(folder) for folder in folders}
    first, *others = read
    for folder in others:
        _check_comparable(first, read[first], folder, read[folder], several_sets)

    groups: dict[str, dict[int, Path]] = {}
    for folder, content in read.items():
        config = {key: value for key, value in content["config"].items() if key not in NO_SETTINGS}
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
    cautions = dict.fromkeys(caution for each in read.values() for caution in _cautions(each))
    if several_sets:
        cautions = {_SEVERAL_SETS: None, **cautions}
    return Comparison(
        lines,
        f"{conditions(read[first])}; mean ± sample standard deviation over the seeds of training.",
        tuple(cautions),
    )


def scores_text(content: dict[str, Any]) -> str:
    """The measures of one run in two columns. content: as `read_evaluation` gives it."""
    width = max(map(len, content["scores"]))
    lines = [f"  {name:{width}}  {_number(name, score)}" for name, score in content["scores"].items()]
    return "\n".join(
        [
            f"{content['model']} at step {content['checkpoint']['step']} of {content['config']['steps']}",
            conditions(content),
            *lines,
            *_cautions(content),
            _time(content["seconds"]),
        ]
    )


def conditions(content: dict[str, Any]) -> str:
    """How a run was measured: data set, sample sizes, protocol, classifier, order of codes."""
    data, options = content["data"], content["options"]
    few = shortened(options, data["available"])
    parts = [
        f"{data['name']}, {data['size']} x {data['size']} pixels",
        f"{options['train']} training and {options['test']} test samples" + (f" ({few})" if few else ""),
    ]
    if data["factor_names"]:
        parts += [f"DCI by {options['classifier']}", f"codes by {options['order']}"]
    else:
        parts.append("no labels, so only measures that need none")
    if data["factor_names"] and not data["grid"]:
        parts.append("no image for every combination of factors, so no measures that choose images by factor")
    if options["protocol"] != "held-out":
        parts.append(f"protocol of the {options['protocol']}, images from the whole set")
    return "; ".join(parts)


def _cautions(content: dict[str, Any]) -> list[str]:
    return [f"Caution: {sentence}." for sentence in content["cautions"].values()]


def _time(seconds: dict[str, float]) -> str:
    told = f"measured in {sum(seconds.values()):.0f} s"
    return told + (f", of which {seconds['dci']:.0f} s for DCI" if "dci" in seconds else "")


def _check_comparable(
    first: Path, one: dict[str, Any], second: Path, other: dict[str, Any], several_sets: bool
) -> None:
    for part, keys in (
        ("options", ("protocol", "train", "test", "classifier", "order")),
        ("data", ("name", "size", "factor_names")),
    ):
        for key in keys:
            if one[part][key] != other[part][key]:
                raise ValueError(
                    f"{first} and {second} cannot be compared: {part}.{key} was {one[part][key]!r} for the "
                    f"first and {other[part][key]!r} for the second"
                )
    for key in () if several_sets else ("images", "labels"):  # old files lack them
        digests = {each["data"].get(key) for each in (one, other)} - {None}
        if len(digests) > 1:
            raise ValueError(
                f"{first} and {second} cannot be compared: they were measured on other {key}, though both "
                f"sets are called {one['data']['name']!r}"
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
            if key not in NO_SETTINGS and any(each.get(key) != config[key] for each in alike)
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


def _cell(line: Line, name: str) -> str:
    if name not in line.mean:
        return "\u2013"
    mean, deviation = line.mean[name], line.deviation[name]
    if deviation is None:
        return _number(name, mean)
    return f"{_number(name, mean)} ± {_number(name, deviation)}"


def _number(name: str, value: float) -> str:
    known = measure(name)
    return f"{value:.3f}" if known is None else known.text(value)
