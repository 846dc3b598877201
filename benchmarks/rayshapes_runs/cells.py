"""Cells of tables in Markdown, and the tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fqvae.evaluation.measures import measure
from rayshapes_runs.numbers import NONE, Spread, figures, spread

MINUS = "\u2212"
THOUSANDTHS = ("mse",)  # measures that are shown in thousandths


def label(name: str) -> str:
    """A measure in a heading, of tables and plots."""
    known = measure(name)
    if name == "infoc_corrected":
        return "InfoC, corrected"
    if name in THOUSANDTHS:
        return f"1000 {name.upper()}"
    return name if known is None else known.short or known.label


def shown(name: str, value: float) -> float:
    """A value as `label` says it."""
    return 1000 * value if name in THOUSANDTHS else value


def mean_cell(name: str, values: Mapping[int, float]) -> str:
    if not values:
        return NONE
    found = spread(list(values.values()))
    mean = cell(name, found.mean)
    return mean if found.deviation is None else f"{mean} ± {cell(name, found.deviation)}"


def difference_cell(name: str, found: Spread | None) -> str:
    if found is None:
        return NONE
    mean = f"{'+' if found.mean >= 0 else MINUS}{cell(name, abs(found.mean))}"
    if found.half is None:
        return mean
    text = f"{mean} ± {cell(name, found.half)}"
    return f"**{text}**" if found.decided else text


def cell(name: str, value: float) -> str:
    known = measure(name)
    decimals = 2 if name in THOUSANDTHS else 3 if known is None else known.decimals
    return figures(shown(name, value), decimals)


def table(heading: Sequence[str], rows: Sequence[Sequence[Any]], *, texts: int = 1) -> str:
    """texts: columns that are no numbers, which end at the right."""
    lines = [heading, ["---"] * texts + ["---:"] * (len(heading) - texts), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
