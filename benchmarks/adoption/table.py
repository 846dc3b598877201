"""The table of docs/replace.md."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path

from _report import measured_on, replace_between

from adoption.case import Case, Kind
from adoption.results import Results

COLUMNS = (
    *("model", "quantizer", "loss in training", "loss in eval()", "codes in use", "ms a step"),
    *("changed lines", "seeds"),
)
CAPTION = (
    "Losses are the task's, without the quantizer's: the mean of the seeds, their range in brackets. In"
    " training it is the mean of the last tenth of the steps; in `eval()` it is of data that were held out,"
    " and so are the codes in use (of wav2vec2 their perplexity). A step's time is the median of steps that"
    ' all kinds of a model take in turn; "x": times as fast as the model\'s first line.'
    " Every model is a small one, trained for minutes: the table compares quantizers, and says nothing about"
    " the models at size."
)


def table(cases: Mapping[str, Case], results: Results) -> str:
    """A line for each case and kind with a run or a time."""
    held = results.read()
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---|---|" + "---:|" * (len(COLUMNS) - 2)]
    for name, case in cases.items():
        for place, (kind, about) in enumerate(case.kinds.items()):
            runs = list(results.runs(name, kind).values())
            timed = held["times"].get(name, {}).get(kind)
            if not runs and timed is None:
                continue
            time = "-"
            if timed is not None:
                time = f"{timed['milliseconds']:.1f}"
                time += f" ({timed['times_as_fast']:.2f} x)" if place else ""
            cells = [case.title, about.quantizer, *_losses(runs, about), time]
            cells += [str(len(about.changed)) if place else "", str(len(runs))]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def page(cases: Mapping[str, Case], results: Results) -> str:
    """The table with what has to be said of it."""
    machine = results.read()["machine"]
    parts = [table(cases, results), CAPTION]
    if machine:
        parts.append("Times: " + measured_on(machine))
    return "\n\n".join(parts)


def write(path: Path, cases: Mapping[str, Case], results: Results) -> None:
    """Put it between the page's markers. Raises ValueError if the page has none."""
    replace_between(path, "adoption", page(cases, results))


def _losses(runs: list[dict[str, float]], kind: Kind) -> list[str]:
    """Loss in training, loss in eval(), codes in use."""
    if not runs:
        return ["-"] * 3
    training, held_out, codes = (
        _spread([run[key] for run in runs]) for key in ("training", "held_out", "codes")
    )
    return [training, held_out, f"{codes} of {kind.codes}"]


def _spread(values: list[float]) -> str:
    """The mean; its range in brackets if there are several values that differ."""
    mean, low, high = (_digits(each) for each in (statistics.fmean(values), min(values), max(values)))
    return mean if low == high else f"{mean} ({low} to {high})"


def _digits(value: float) -> str:
    """Three significant digits; whole where it is 100 or more."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
