"""Matrices of scores as heat maps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from fqvae.figures.style import INK, MUTED, PAPER, SEQUENTIAL, headings, literal, spaced, styled

_CELL = 0.36  # inches


@styled
def heatmap(
    matrix: ArrayLike,
    row_names: Sequence[str],
    column_names: Sequence[str],
    *,
    title: str = "",
    row_axis: str = "",
    column_axis: str = "",
    scale: str = "",
) -> Figure:
    """Numbers from 0 to 1 as colours, each written in its cell.

    Args:
        matrix: (rows, columns); NaN for a number that is not defined.
        row_names, column_names: for each row and column.
        title: above. row_axis, column_axis: what rows and columns are. scale: what the numbers are.

    Raises:
        ValueError: shapes that do not fit, a number outside [0, 1].
    """
    table = np.asarray(matrix, np.float64)
    if table.shape != (len(row_names), len(column_names)) or not table.size:
        raise ValueError(
            f"matrix must be of shape ({len(row_names)}, {len(column_names)}), as the names are, "
            f"but was {table.shape}"
        )
    if (table < 0).any() or (table > 1 + 1e-9).any():
        raise ValueError(f"matrix must be in [0, 1], but ran from {np.nanmin(table)} to {np.nanmax(table)}")
    rows, columns = table.shape
    letters = 0.068 * max(map(len, row_names))  # inches, about
    # Long names of columns stand upright.
    below = 0.068 * max(map(len, column_names))
    upright = below > 0.8 * _CELL
    lines = title.split("\n")
    width = max(1.4 + letters + _CELL * columns, 0.2 + 0.085 * max(map(len, lines)))
    height = max(1 + _CELL * rows, 1.8) + 0.15 * len(lines) + (below if upright else 0)
    figure = Figure((width, height), layout=spaced())
    axes = figure.add_subplot()
    image = axes.imshow(table, cmap=SEQUENTIAL, vmin=0, vmax=1, interpolation="none", aspect="equal")
    axes.set_xticks(range(columns), map(literal, column_names), rotation=90 if upright else 0)
    axes.set_yticks(range(rows), map(literal, row_names), color=INK)
    axes.set(xlabel=literal(column_axis), ylabel=literal(row_axis))
    headings(figure, title)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xticks(np.arange(1, columns) - 0.5, minor=True)
    axes.set_yticks(np.arange(1, rows) - 0.5, minor=True)
    axes.grid(which="minor", color=PAPER, linewidth=1.2)
    axes.tick_params(which="minor", length=0)
    for (row, column), number in np.ndenumerate(table):
        text = "n/a" if np.isnan(number) else f"{number:.2f}".removeprefix("0")
        axes.text(
            column,
            row,
            text,
            ha="center",
            va="center",
            fontsize=6.5,
            color=PAPER if number > 0.58 else INK if number >= 0.095 else MUTED,
        )
    bar = figure.colorbar(image, ax=axes, label=scale, ticks=[0, 0.5, 1], shrink=0.8, aspect=18, pad=0.02)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0)
    return figure
