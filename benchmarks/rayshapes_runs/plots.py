"""Plots of the page docs/results.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from fqvae.figures import Point, heatmap, measures_against
from fqvae.figures.style import ACCENT, WIDTH, headings, panels, styled
from fqvae.files import write_whole
from rayshapes_runs.cells import label, shown
from rayshapes_runs.numbers import Spread, spread
from rayshapes_runs.questions import UNLABELLED, Question
from rayshapes_runs.reading import Results
from rayshapes_runs.tables import most_told

SHOWN = ("disentanglement", "infom", "infoe", "mse")


@styled
def against(question: Question, found: Results) -> Figure:
    """Measures of an experiment's runs against what differs in them; at least one run."""
    points = []
    for name in found.scores:
        spreads: dict[str, Spread] = {
            each: spread(list(values.values())) for each in SHOWN if (values := found.values(name, each))
        }
        config = found.configs[name]
        setting = config[question.setting] if question.setting else name
        line = f"{config['model.name']}, {config['steps']:,} steps" if question.line == "length" else ""
        line = str(config[question.line]) if question.line and not line else line
        points.append(
            Point(
                setting,
                line,
                len(found.scores[name]),
                {each: shown(each, part.mean) for each, part in spreads.items()},
                {each: part.deviation and shown(each, part.deviation) for each, part in spreads.items()},
            )
        )
    figure = measures_against(question.setting, points, {each: label(each) for each in SHOWN})
    lines = len({point.line for point in points})
    # Names of runs stand upright under the axes.
    longest = 0 if question.setting else max(map(len, found.scores))
    figure.set_size_inches(WIDTH, 2.4 + 0.2 * lines / 3 + 0.06 * max(0, longest - 10))
    headings(figure, question.title)
    return figure


def told(found: Results) -> Figure:
    """What `tables.told` has of factors, as a heat map; at least one run with labels."""
    rows = {
        name: most_told([each for each in seeds.values() if each.get("nmi")])
        for name, seeds in found.contents.items()
        if any(each.get("nmi") for each in seeds.values())
    }
    factors = next(iter(next(iter(found.contents.values())).values()))["data"]["factor_names"]
    return heatmap(
        # Estimates by nearest neighbours may exceed 1.
        np.minimum(np.stack(list(rows.values())), 1.0),
        list(rows),
        [each.replace("_", " ") for each in factors],
        title="Normalised information in the latent that tells most of a factor",
    )


@styled
def unlabelled(runs: Mapping[str, Sequence[Mapping[str, float]]]) -> Figure:
    """D of each run against each measure that needs no labels. runs: scores by experiment; "all" is used."""
    figure, axes = panels(len(UNLABELLED), 4, 2.0)
    for each, name in zip(axes, UNLABELLED, strict=True):
        both = [
            (shown(name, scores[name]), scores["disentanglement"]) for scores in runs["all"] if name in scores
        ]
        each.scatter([x for x, _ in both], [y for _, y in both], s=6, color=ACCENT, linewidths=0)
        if both and min(x for x, _ in both) > 0:
            each.set_xscale("log")
        each.set_title(label(name))
        each.grid(axis="y")
    headings(figure, "Disentanglement (D) of runs, against measures without labels", y="D")
    return figure


@styled
def save_svg(figure: Figure, path: Path) -> None:
    """Write a figure; the same figure is the same file."""
    write_whole(path, lambda file: figure.savefig(file, format="svg", metadata={"Date": None}))
