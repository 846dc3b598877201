"""Measures of several configurations against a setting in which they differ."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from fqvae.figures.style import LINES, headings, literal, panels, styled

Setting: TypeAlias = "bool | int | float | str | None"

_DASHES = ("-", (0, (4, 2)), (0, (1, 1.5)))  # of lines beyond the number of colours
_CAPTION = (
    "Points: mean over the seeds. Bars: 95 % t interval of the mean; a single seed has none, "
    "those of two may leave the axes."
)
# That of two seeds is nine standard deviations to each side, and would leave no room for anything else.
_REACH = 3.0  # standard deviations of a bar that the axes have room for


@dataclass(frozen=True)
class Point:
    """A configuration, trained with several seeds.

    setting: where it stands on the horizontal axis. line: what else tells it from others; points of equal
    texts form a line. seeds: how many. mean, deviation: of each measure by name; the latter is the sample
    standard deviation (n - 1), None for a single seed.
    """

    setting: Setting
    line: str
    seeds: int
    mean: Mapping[str, float]
    deviation: Mapping[str, float | None]


def t_interval(deviation: float | None, count: int, level: float = 0.95) -> float:
    """Half the width of the t interval of a mean; 0 where there is no deviation.

    t((1 + level)/2, n - 1) s / sqrt(n), with Student's t.

    Args:
        deviation: s, the sample standard deviation (n - 1).
        count: n, the number of samples.
        level: how often such an interval has the true mean, between 0 and 1.
    """
    if deviation is None or count < 2:
        return 0.0
    from scipy.stats import t  # type: ignore[import-untyped]

    return float(t.ppf((1 + level) / 2, count - 1)) * deviation / math.sqrt(count)


@styled
def measures_against(setting: str, points: Sequence[Point], labels: Mapping[str, str]) -> Figure:
    """Each measure against a setting: numbers as lines, other settings as points side by side.

    Args:
        setting: the setting's name.
        points: the configurations, at least one; a category stands where it is first met.
        labels: names of measures for people; others stand as they are.

    Raises:
        ValueError: there are no points, or no measures that all of them have.
    """
    measures = [name for name in (points[0].mean if points else {}) if all(name in p.mean for p in points)]
    if not measures:
        raise ValueError("points must have a measure in common, but had none")
    texts = {_text(point.setting) for point in points}
    upright = max(map(len, texts)) * len(texts) > 24
    figure, axes = panels(len(measures), 4, 2.0 if upright else 1.5)
    lines = list(dict.fromkeys(point.line for point in points))
    for each, measure in zip(axes, measures, strict=True):
        _draw(each, measure, points, lines)
        each.tick_params(axis="x", labelrotation=90 if upright else 0)
        each.set_title(labels.get(measure, measure.replace("_", " ")))
    handles, named = axes[0].get_legend_handles_labels() if len(lines) > 1 else ([], [])
    figure.legend(
        handles, named, loc="outside lower left", ncols=3, title=_CAPTION, title_fontsize=7, alignment="left"
    )
    headings(figure, f"Measures against {setting}")
    return figure


def _draw(axes: Axes, measure: str, points: Sequence[Point], lines: Sequence[str]) -> None:
    numbers = sorted({point.setting for point in points if _is_number(point.setting)})  # type: ignore[type-var]
    numeric = all(_is_number(point.setting) for point in points)
    places: dict[Setting, float]
    if numeric:
        places = {number: float(number) for number in numbers}  # type: ignore[arg-type]
    else:
        places = {value: float(at) for at, value in enumerate(dict.fromkeys(p.setting for p in points))}
    for number, line in enumerate(lines):
        own = sorted((p for p in points if p.line == line), key=lambda point: places[point.setting])
        # Categories: the lines' points beside each other, not on top of each other.
        aside = 0.0 if numeric else 0.5 * ((number + 0.5) / len(lines) - 0.5)
        axes.errorbar(
            [places[point.setting] + aside for point in own],
            [point.mean[measure] for point in own],
            yerr=[t_interval(point.deviation.get(measure), point.seeds) for point in own],
            color=LINES[number % len(LINES)],
            marker="o",
            markersize=3,
            capsize=2,
            elinewidth=0.8,
            linestyle=_DASHES[number // len(LINES) % len(_DASHES)] if numeric else "none",
            label=literal(line),
        )
    _bound(axes, [(point.mean[measure], point.deviation.get(measure), point.seeds) for point in points])
    if numeric and numbers and float(numbers[0]) > 0 and float(numbers[-1]) >= 8 * float(numbers[0]):  # type: ignore[arg-type]
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(list(places.values()), [literal(_text(value)) for value in places])
    if not numeric:
        axes.set_xlim(-0.5, len(places) - 0.5)
    axes.grid(axis="y")


def _bound(axes: Axes, bars: Sequence[tuple[float, float | None, int]]) -> None:
    """Limit the axes if a bar is longer than they have room for. bars: mean, deviation, seeds."""
    halves = [t_interval(deviation, seeds) for _, deviation, seeds in bars]
    room = [min(half, _REACH * (bar[1] or 0.0)) for half, bar in zip(halves, bars, strict=True)]
    if room == halves:
        return
    low = min(bar[0] - each for bar, each in zip(bars, room, strict=True))
    high = max(bar[0] + each for bar, each in zip(bars, room, strict=True))
    axes.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))


def _is_number(value: Setting) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _text(value: Setting) -> str:
    if value is None:
        return "none"
    return (
        f"{value:g}" if _is_number(value) else str(value).lower() if isinstance(value, bool) else str(value)
    )
