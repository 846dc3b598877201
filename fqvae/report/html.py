"""Text into HTML, and small figures as HTML tables and inline SVG, coloured by the page's style sheet."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def escape(text: str) -> str:
    """Text for the inside of an element or of a quoted attribute."""
    return html.escape(text, quote=True)


def json_block(content: object) -> str:
    """JSON for the inside of a <script> element, which no text in it can end."""
    return json.dumps(content, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def matrix(
    caption: str, values: NDArray[np.float64], rows: Sequence[tuple[str, str]], columns: Sequence[str]
) -> str:
    """A heat map as a table. values: (rows, columns), shaded from 0 to 1. rows: a name and a remark each."""
    head = "".join(f'<th scope="col"><span>{escape(name)}</span></th>' for name in columns)
    body = []
    for (name, remark), line in zip(rows, values, strict=True):
        cells = "".join(
            f'<td style="--v:{min(max(value, 0.0), 1.0):.3f}"{_shade(value)}>{value:.2f}</td>'
            for value in line
        )
        body.append(f'<tr><th scope="row">{escape(name)} <span>{escape(remark)}</span></th>{cells}</tr>')
    return (
        f'<table class="matrix"><caption>{escape(caption)}</caption><thead><tr><td></td>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table>"
    )


def _shade(value: float) -> str:
    """The class of a cell whose ground is so strong that its text needs another colour."""
    return ' class="full"' if value > 0.8 else ' class="half"' if value > 0.57 else ""


def bars(counts: NDArray[np.int64], description: str) -> str:
    """A histogram."""
    highest = max(int(counts.max()), 1)
    rects = "".join(
        f'<rect x="{place}" y="{40 - height:.2f}" width="1" height="{height:.2f}"/>'
        for place, count in enumerate(counts)
        if (height := 40 * int(count) / highest)
    )
    return (
        f'<svg class="bars" viewBox="0 0 {len(counts)} 40" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(description)}">{rects}</svg>'
    )


_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 340, 150, 44, 8, 8, 22


def curve(steps: Sequence[float], values: Sequence[float], name: str, guessing: float | None = None) -> str:
    """A line over the steps, on a logarithmic scale where it spans more than a factor of 10.

    guessing: what one that guesses would have; a broken line, with a legend.
    """
    described = f"{name}: {values[0]:.4g} at step {steps[0]:,.0f}, {values[-1]:.4g} at step {steps[-1]:,.0f}"
    return chart([(steps, values, "")], name, f"{values[-1]:.4g} at the end", described, guessing)


def chart(
    lines: Sequence[tuple[Sequence[float], Sequence[float], str]],
    name: str,
    remark: str,
    described: str,
    guessing: float | None = None,
) -> str:
    """Lines over the steps, on a logarithmic scale where they span more than a factor of 10.

    Args:
        lines: steps and values of each, finite and not empty, and the class that colours it, if any.
        name, remark: the caption. described: the picture in words.
        guessing: as for `curve`.
    """
    level = [] if guessing is None else [guessing]
    low = min([*(min(line[1]) for line in lines), *level])
    high = max([*(max(line[1]) for line in lines), *level])
    log = low > 0 and high > 10 * low
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        low, high = low - (abs(low) or 1), high + (abs(high) or 1)
    ticks = _log_ticks(low, high) if log else _ticks(low, high)
    if len(ticks) > 1:  # the lines stay between ticks
        low, high = min(low, ticks[0]), max(high, ticks[-1])
    last = max(*(line[0][-1] for line in lines), 1)

    def x(step: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * step / last

    def y(value: float) -> float:
        part = math.log(value / low) / math.log(high / low) if log else (value - low) / (high - low)
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * part

    grid = "".join(
        f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>'
        f'<text x="{_LEFT - 6}" y="{y(tick) + 3.5:.1f}" text-anchor="end">{tick:.4g}</text>'
        for tick in ticks
    )
    drawn = ""
    for steps, values, colour in lines:
        points = " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in zip(steps, values, strict=True))
        class_ = f' class="{colour}"' if colour else ""
        drawn += f'<polyline points="{points}"{class_}/>'
    legend = ""
    if guessing is not None:
        drawn = (
            f'<line class="guessing" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(guessing):.1f}" '
            f'y2="{y(guessing):.1f}"/>{drawn}'
        )
        legend = (
            '<div class="legend"><span class="drawn">discriminator</span>'
            f'<span class="guessing">guessing: {guessing:.3g}</span></div>'
        )
    texts = [text for text in (remark, "logarithmic scale" if log else "") if text]
    return (
        f"<figure><figcaption><b>{escape(name)}</b> <span>{escape(', '.join(texts))}</span></figcaption>"
        f'<svg class="curve" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(described)}">'
        f'{grid}<text x="{_LEFT}" y="{_HEIGHT - 6}">0</text>'
        f'<text x="{_WIDTH - _RIGHT}" y="{_HEIGHT - 6}" text-anchor="end">{last:,.0f} steps</text>'
        f"{drawn}</svg>{legend}</figure>"
    )


def _ticks(low: float, high: float) -> list[float]:
    """Three to five round numbers around [low, high]."""
    unit = 10.0 ** math.floor(math.log10((high - low) / 2))
    step = next(unit * each for each in (1, 2, 5, 10) if (high - low) / (unit * each) <= 3)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [float(f"{place * step:.12g}") for place in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten inside [low, high], five or so at most; where there are few, their multiples too."""
    first, last = math.floor(math.log10(low)), math.floor(math.log10(high))
    factors = (1.0,) if last - first > 2 else (1.0, 2.0, 5.0)
    powers = range(first, last + 1, max((last - first) // 4, 1))
    ticks = [factor * 10.0**power for power in powers for factor in factors]
    return [tick for tick in ticks if low <= tick <= high]
