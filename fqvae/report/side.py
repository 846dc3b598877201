"""Tables of runs side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fqvae.evaluation import comparison, find_evaluation
from fqvae.evaluation.measures import headlines, measure
from fqvae.report.html import escape
from fqvae.runs import RunConfig, to_flat
from fqvae.runs.checkpoint import checkpoint_path
from fqvae.runs.config import NO_SETTINGS
from fqvae.runs.run import sha256

_COLOURS, _DASHES = 8, 3


def colour(group: int) -> str:
    """The classes of a group's line: eight colours, then the same ones dashed."""
    dash = group // _COLOURS % _DASHES
    return f"c{group % _COLOURS}" + (f" dash{dash}" if dash else "")


def scores_table(runs: Sequence[tuple[Path, str, str]]) -> str:
    """A row for each run, and above those of a group their mean; what is missing is said below.

    runs: folder, label and group of each; those of a group stand together.
    """
    evaluations: dict[str, dict[str, Any]] = {}
    notices = []
    for folder, label, _ in runs:
        content, missing = find_evaluation(folder, sha256(checkpoint_path(folder)))
        if content is None:
            notices.append(f"{label} has no measures: {missing}")
        else:
            evaluations[label] = content
    said = "".join(f'<p class="notice">{escape(notice)}</p>' for notice in notices)
    if not evaluations:
        return said
    measured = [folder for folder, label, _ in runs if label in evaluations]
    try:
        table = comparison(measured)
        conditions, comparable = f"{table.conditions} Measures of other conditions cannot be compared.", True
    except ValueError as error:  # other sample sizes and the like; or one run twice
        conditions, comparable = f"These measures cannot be compared with each other: {error}", False
    names = list(dict.fromkeys(name for content in evaluations.values() for name in content["scores"]))
    first = [each.name for each in headlines(dict.fromkeys(names))]
    names = [*first, *(name for name in names if name not in first)]
    head = "".join(f'<th scope="col">{escape(_heading(name))}</th>' for name in names)
    rows = []
    for group in dict.fromkeys(group for *_, group in runs):
        members = [(folder, label) for folder, label, own in runs if own == group]
        known = [folder for folder, label in members if label in evaluations]
        several = len(members) > 1
        if several and comparable and len(known) > 1:
            (line, *others) = comparison(known).lines
            if not others:
                cells = [_mean(line.mean.get(name), line.deviation.get(name), name) for name in names]
                rows.append(_row("mean", f"{group}, mean of {len(known)}", cells))
        for _, label in members:
            scores = evaluations[label]["scores"] if label in evaluations else {}
            rows.append(_row("seed" if several else "one", label, [_number(scores.get(n), n) for n in names]))
    return (
        f'{said}<p>{escape(conditions)}</p><div class="wide" tabindex="0" role="region" '
        'aria-label="Measures of the runs"><table class="side">'
        f'<thead><tr><th scope="col">run</th>{head}</tr>'
        f"</thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def settings_table(runs: Sequence[tuple[str, RunConfig, int]]) -> str:
    """The settings in which groups differ: a row for each setting, a column for each group.

    runs: group, configuration and steps trained of each. The first of a group stands for it.
    """
    columns: dict[str, dict[str, Any]] = {}
    for group, config, step in runs:
        columns.setdefault(group, {"steps trained": step, **to_flat(config)})
    differing = [
        key
        for key in next(iter(columns.values()))
        if key not in NO_SETTINGS and len({str(column[key]) for column in columns.values()}) > 1
    ]
    if not differing:
        return "<p>None but the seed.</p>"
    head = "".join(f'<th scope="col">{escape(group)}</th>' for group in columns)
    body = "".join(_row("one", key, [str(each[key]) for each in columns.values()]) for key in differing)
    return (
        '<div class="wide" tabindex="0" role="region" aria-label="Settings of the runs"><table class="side">'
        f'<thead><tr><th scope="col">setting</th>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _row(kind: str, heading: str, cells: Sequence[str]) -> str:
    values = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
    return f'<tr class="{kind}"><th scope="row">{escape(heading)}</th>{values}</tr>'


def _mean(mean: float | None, deviation: float | None, name: str) -> str:
    if mean is None or deviation is None:
        return _number(mean, name)
    return f"{_number(mean, name)} ± {_number(deviation, name)}"


def _number(value: float | None, name: str) -> str:
    if value is None:
        return "\u2013"
    known = measure(name)
    return f"{value:.3f}" if known is None else known.text(value)


def _heading(name: str) -> str:
    known = measure(name)
    return name.replace("_", " ") if known is None else known.short or known.label
