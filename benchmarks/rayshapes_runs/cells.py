"""Cells of tables in Markdown, and the tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fqvae.evaluation.measures import measure
from rayshapes_runs.derived import DERIVED
from rayshapes_runs.numbers import NONE, Spread, figures, spread

MINUS = "\u2212"
THOUSANDTHS = ("mse",)  # measures that are shown in thousandths


def short_name(name: str) -> str:
    """A measure's name for people."""
    known = measure(name)
    if name.endswith("_corrected"):
        return f"{short_name(name.removesuffix('_corrected'))}, corrected"
    if name in DERIVED:
        return DERIVED[name]
    return name if known is None else known.short or known.label


def label(name: str) -> str:
    """A measure in a heading over its values, of tables and plots."""
    return f"1000 {short_name(name)}" if name in THOUSANDTHS else short_name(name)


def shown(name: str, value: float) -> float:
    """A value as `label` says it."""
    return 1000 * value if name in THOUSANDTHS else value


def mean_cell(name: str, values: Mapping[int, float]) -> str:
    """Mean ± sample standard deviation of a measure. values: by seed."""
    if not values:
        return NONE
    found = spread(list(values.values()))
    mean = cell(name, found.mean)
    return mean if found.deviation is None else f"{mean} ± {cell(name, found.deviation)}"


def difference_cell(name: str, found: Spread | None) -> str:
    """Mean ± half of the 95 % t interval of differences of a measure, bold if that leaves 0 out."""
    if found is None:
        return NONE
    mean = f"{'+' if found.mean >= 0 else MINUS}{cell(name, abs(found.mean))}"
    if found.half is None:
        return mean
    text = f"{mean} ± {cell(name, found.half)}"
    return f"**{text}**" if found.decided else text


def cell(name: str, value: float) -> str:
    """A value of a measure."""
    known = measure(name)
    decimals = 2 if name in THOUSANDTHS else 3 if known is None else known.decimals
    return figures(shown(name, value), decimals)


def table(heading: Sequence[str], rows: Sequence[Sequence[Any]], *, texts: int = 1) -> str:
    """A table in Markdown. texts: columns before those of numbers, which end at the right."""
    lines = [heading, ["---"] * texts + ["---:"] * (len(heading) - texts), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
