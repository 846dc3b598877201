"""Histograms of what latents use: codes, or the values of a continuous model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from fqvae.figures.style import ACCENT, FAINT, MUTED, headings, literal, panels, styled, two_decimals
from fqvae.metrics._information import entropy_of_counts

_COLUMNS, _HEIGHT = 3, 1.35


@styled
def code_usage(
    counts: ArrayLike,
    values: ArrayLike | None = None,
    *,
    labels: Sequence[str] | None = None,
    title: str = "",
    note: str = "",
) -> Figure:
    """For each latent the share of images that has each code, in the order of the codes' values.

    Args:
        counts: (M, K), how often each code occurs; at least one code in each row.
        values: the codebook, (K,) or (M, K); None for codes without an order: then by index.
        labels: of the latents; their numbers if None.
        title, note: above and below.

    Raises:
        ValueError: shapes that do not fit, a latent without counts.
    """
    table = np.asarray(counts)
    if table.ndim != 2 or not table.size or not (table.sum(1) > 0).all():
        raise ValueError(
            "counts must be of shape (latents, codes), each latent with some, "
            f"but was {table.shape} with the sums {table.sum(-1).tolist()}"
        )
    order = np.arange(table.shape[1]) if values is None else np.asarray(values)
    if order.shape not in (table.shape[1:], table.shape):
        raise ValueError(f"values must be of shape {table.shape[1:]} or {table.shape}, but was {order.shape}")
    figure, axes = panels(len(table), _COLUMNS, _HEIGHT)
    for latent, (each, row) in enumerate(zip(axes, table, strict=True)):
        own = order if order.ndim == 1 else order[latent]
        ranked = np.argsort(own, kind="stable")
        each.bar(np.arange(len(own)), row[ranked] / row.sum(), 0.9, color=ACCENT)
        ticks = np.unique(np.linspace(0, len(own) - 1, 5).round().astype(int))
        texts = [str(code) if values is None else two_decimals(own[code]) for code in ranked[ticks]]
        each.set_xticks(ticks, texts)
        each.set_xlim(-1, len(own))
        detail = f"{(row > 0).sum()} of {len(own)} codes, perplexity {np.exp(entropy_of_counts(row)):.1f}"
        _finish(each, labels[latent] if labels else f"latent {latent}", detail)
    axis = (
        "code, by index: codes that are vectors have no order"
        if values is None
        else ("codes in the order of their values, some of which are written below")
    )
    headings(figure, title, f"{axis}\n{note}".rstrip(), "share of images")
    return figure


@styled
def value_histograms(
    values: ArrayLike,
    *,
    labels: Sequence[str] | None = None,
    title: str = "",
    note: str = "",
    bins: int = 40,
) -> Figure:
    """For each latent of a continuous model the share of images in each of `bins` equal intervals.

    All latents have the same axis, so that those which hardly move show. Bands: 1st to 99th percentile.

    Args:
        values: (samples, M), finite.
        labels: of the latents; their numbers if None.
        title, note: above and below.

    Raises:
        ValueError: another shape, no samples.
    """
    table = np.asarray(values, np.float64)
    if table.ndim != 2 or not table.size:
        raise ValueError(f"values must be of shape (samples, latents), but was {table.shape}")
    figure, axes = panels(table.shape[1], _COLUMNS, _HEIGHT)
    edges = np.histogram_bin_edges(table, bins)
    for latent, (each, column) in enumerate(zip(axes, table.T, strict=True)):
        each.axvspan(*np.percentile(column, (1, 99)), color=FAINT, lw=0, zorder=0)
        shares = np.histogram(column, edges)[0] / len(column)
        each.bar(edges[:-1], shares, np.diff(edges), align="edge", color=ACCENT)
        each.set_xlim(edges[0], edges[-1])
        detail = f"mean {two_decimals(column.mean())}, standard deviation {two_decimals(column.std())}"
        _finish(each, labels[latent] if labels else f"latent {latent}", detail)
    axis = "value of the latent; band: 1st to 99th percentile"
    headings(figure, title, f"{axis}\n{note}".rstrip(), "share of images")
    return figure


def _finish(axes: Axes, label: str, detail: str) -> None:
    axes.set_title(literal(label), pad=14)
    axes.annotate(
        detail,
        (0, 1),
        xycoords="axes fraction",
        xytext=(0, 4),
        textcoords="offset points",
        fontsize=6.5,
        color=MUTED,
    )
    axes.yaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:.4g}%")
