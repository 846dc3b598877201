"""A run's metrics.csv as curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fqvae.figures.style import LINES, MUTED, headings, panels, styled
from fqvae.models.penalties import PENALTIES


class _Panel(NamedTuple):
    """Columns with their names in the legend, and whether the axis is logarithmic."""

    title: str
    columns: Mapping[str, str]
    log: bool = False


# What a discriminator has that guesses, joint distribution or product, half of each.
GUESSING = {"discriminator": math.log(2), "discriminator_accuracy": 0.5}
_PERPLEXITY = "perplexity/"
_NETWORKS = ("encoder", "decoder", "codebook", "discriminator")
_PANELS = (
    _Panel("loss", {"loss": "loss", "reconstruction": "reconstruction"}, log=True),
    *(_Panel(each.title.replace(", ", ",\n"), {each.name: each.name}) for each in PENALTIES.values()),
    _Panel("discriminator's loss", {"discriminator": "discriminator"}),
    _Panel("discriminator's accuracy", {"discriminator_accuracy": "discriminator"}),
    _Panel("perplexity of codes", {f"{_PERPLEXITY}pooled": "together"}),
    _Panel("norm of the gradients", {f"gradient_norm/{name}": name for name in _NETWORKS}, log=True),
    _Panel("temperature", {"temperature": ""}),
    _Panel("learning rate", {"learning_rate": ""}),
)


@styled
def training_curves(columns: Mapping[str, Sequence[float]], *, title: str = "") -> Figure:
    """Losses, penalties, perplexities, gradients and schedules, each against the step.

    Columns that the model does not have are left out, and so are those without a panel.

    Args:
        columns: as `fqvae.runs.read_columns` gives them: "step" and at least one that has a panel; all of one
            length.
        title: above all.

    Raises:
        ValueError: no steps, nothing to draw, columns of different lengths.
    """
    steps = columns.get("step", ())
    shown = [panel for panel in _PANELS if any(name in columns for name in panel.columns)]
    if not len(steps) or not shown:
        raise ValueError(f"columns must hold step and losses, but held {', '.join(columns) or 'nothing'}")
    for name, column in columns.items():
        if len(column) != len(steps):
            raise ValueError(f"{name} must have the length of step, {len(steps)}, but had {len(column)}")
    figure, axes = panels(len(shown), 3, 1.6)
    for each, panel in zip(axes, shown, strict=True):
        _draw(each, panel, columns)
    headings(figure, title, "step")
    return figure


def _draw(axes: Axes, panel: _Panel, columns: Mapping[str, Sequence[float]]) -> None:
    steps, labelled = columns["step"], [name for name in panel.columns if name in columns]
    if f"{_PERPLEXITY}pooled" in labelled:
        latents = [name for name in columns if name.startswith(_PERPLEXITY) and name not in labelled]
        for number, name in enumerate(latents):
            label = "" if number else "each latent"
            axes.plot(steps, columns[name], color=MUTED, linewidth=0.5, alpha=0.7, label=label)
    for name, color in zip(labelled, LINES, strict=False):
        marker = "." if len(steps) == 1 else None  # a single point is no line
        axes.plot(steps, columns[name], color=color, marker=marker, label=panel.columns[name])
    drawn = [value for name in labelled for value in columns[name]]
    if panel.log and min(drawn) >= 0 and max(drawn) > 0:
        axes.set_yscale("log")
    for name in labelled:
        if name in GUESSING:
            level = GUESSING[name]
            axes.axhline(
                level, color=MUTED, linewidth=0.7, linestyle=(0, (3, 2)), label=f"guessing: {level:.3g}"
            )
    if len(axes.get_legend_handles_labels()[1]) > 1:
        _make_room(axes, 0.25 if len(labelled) < 3 else 0.45)
        axes.legend(loc="upper right", ncols=2, handlelength=1, columnspacing=1, borderaxespad=0)
    axes.set_title(panel.title)
    axes.set_xlim(0, None)
    axes.grid(axis="y")
    axes.locator_params(axis="x", nbins=4)


def _make_room(axes: Axes, share: float) -> None:
    """So much more of the vertical axis, for a legend above the lines."""
    scale = axes.yaxis.get_transform()
    low, high = scale.transform(axes.get_ylim())
    axes.set_ylim(*scale.inverted().transform([low, high + share * (high - low)]))
