"""A page that shows runs side by side: scores, settings, training curves, traversals."""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import fqvae
from fqvae.figures.curves import GUESSING
from fqvae.files import check_writable, write_whole
from fqvae.report.build import LIMIT, asset
from fqvae.report.explorer import TooLargeError, png, sheet_data
from fqvae.report.html import chart, escape
from fqvae.report.sample import draw_sample
from fqvae.report.sections import CURVE_NAMES, finite_curves
from fqvae.report.side import colour, scores_table, settings_table
from fqvae.runs import Run, open_run, read_checkpoint, read_columns
from fqvae.runs.names import CURVES

_RESERVE = 1_500_000  # bytes of the page, for all that is no traversal
_POINTS = 200  # of a curve, at most


@dataclass(frozen=True)
class Compared:
    """A run on the page.

    folder: of the run. label: its name there. group: runs of one group differ in their seed alone; they have
    a mean and one colour. traversal: whether its latents are shown.
    """

    folder: Path
    label: str
    group: str
    traversal: bool = True


def build_comparison(
    runs: Sequence[Compared],
    out: str | Path,
    *,
    title: str,
    steps: int = 8,
    samples: int = 500,
    seed: int = 0,
    root: str | Path | None = None,
    device: str = "cpu",
    progress: bool = False,
) -> Path:
    """Write a page about several runs: one HTML file that loads nothing else, of at most 5 MB.

    A run without scores, curves or codes is shown all the same; the page says what is missing and why.

    Args:
        runs: at least one, in the order in which they are shown.
        out: the file; it is written whole or not at all.
        title: the page's heading.
        steps: of a latent in its traversal, at least 2.
        samples: held-out images that are encoded, at least 2: which codes a latent uses is counted there. The
            first one is shown. No more than the test split has are taken.
        seed: of the choice of images.
        root: where the images are now, if not where the runs say.
        device: of the models.
        progress: show progress bars on standard error.

    Returns:
        The file.

    Raises:
        FileNotFoundError: no such run, or no checkpoint in it. CheckpointError: a damaged one.
        ValueError: an option out of range; no runs; two with one label; pictures that do not fit into 5 MB.
        OSError: the file cannot be written.
    """
    labels = [run.label for run in runs]
    if not runs or len(set(labels)) < len(labels):
        raise ValueError(f"runs must be at least one, with different labels, but were {labels}")
    for name, value, least in (("steps", steps, 2), ("samples", samples, 2)):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, but was {value}")
    out = Path(out)
    checkpoints = [read_checkpoint(run.folder) for run in runs]
    check_writable(out.parent)
    groups = list(dict.fromkeys(run.group for run in runs))
    shown = [run for run in runs if run.traversal]
    budget = (LIMIT - _RESERVE) // max(len(shown), 1)
    figures = []
    for run in shown:
        opened = open_run(run.folder, device=device, root=root)
        figures.append(_traversal(opened, run.label, steps, samples, seed, budget, progress))
    page = string.Template(asset("compare.html")).substitute(
        title=escape(title),
        kind=f"{len(runs)} run{'s' if len(runs) > 1 else ''} side by side",
        style=asset("page.css") + asset("compare.css"),
        scores=scores_table([(run.folder, run.label, run.group) for run in runs]),
        settings=settings_table(
            [
                (run.group, checkpoint.config, checkpoint.step)
                for run, checkpoint in zip(runs, checkpoints, strict=True)
            ]
        ),
        curves=_curves(runs, groups),
        traversals_note=_note(len(shown) < len(runs)),
        traversals="\n".join(figures),
        footer=f"Written by fqvae {fqvae.__version__}.",
    )
    content = page.encode()
    if len(content) > LIMIT:
        raise TooLargeError(
            f"the page would take {len(content):,} bytes, more than {LIMIT:,}: name fewer runs"
        )
    write_whole(out, content)
    return out


def _note(some: bool) -> str:
    first = " Of runs that differ in their seed alone, the first one is shown." if some else ""
    return (
        "Each row is a held-out image, decoded with one latent moved over the values that the latent takes "
        f"and the others as they were. Framed: the image\u2019s own, the same picture in every row.{first}"
    )


def _curves(runs: Sequence[Compared], groups: Sequence[str]) -> str:
    """A chart for each curve that any of the runs has, and whose colour is whose."""
    curves, missing = {}, []
    for run in runs:
        try:
            curves[run.label] = finite_curves(read_columns(run.folder / CURVES))
        except (FileNotFoundError, ValueError) as error:  # noqa: PERF203, a few runs
            missing.append(f'<p class="notice">{escape(f"{run.label} has no curves: {error}")}</p>')
    charts = []
    for key in dict.fromkeys(key for each in curves.values() for key in each):
        name = CURVE_NAMES[key]
        with_it = [run for run in runs if key in curves.get(run.label, {})]
        lines = [
            (_thin(steps), _thin(values), colour(groups.index(run.group)))
            for run in with_it
            for steps, values in [curves[run.label][key]]
        ]
        ends = (f"{run.label} {curves[run.label][key][1][-1]:.4g}" for run in with_it)
        described = f"{name} at the end: {', '.join(ends)}"
        charts.append(chart(lines, name, "", described, GUESSING.get(key)))
    legend = "".join(
        f'<li class="{colour(place)}"><svg viewBox="0 0 28 8" aria-hidden="true">'
        f'<line class="{colour(place)}" x1="0" x2="28" y1="4" y2="4"/></svg>{escape(group)}</li>'
        for place, group in enumerate(groups)
    )
    return f'<ul class="legend">{legend}</ul>{"".join(missing)}<div class="curves">{"".join(charts)}</div>'


def _thin(values: Sequence[float]) -> list[float]:
    """At most so many of the values, evenly, the first and the last among them."""
    last, count = len(values) - 1, min(len(values), _POINTS)
    return [values[round(place * last / max(count - 1, 1))] for place in range(count)]


def _traversal(run: Run, label: str, steps: int, samples: int, seed: int, budget: int, progress: bool) -> str:
    """One held-out image with each latent moved, or why there is none."""
    heading = f"<b>{escape(label)}</b> <span>step {run.step:,}"
    try:
        sample = draw_sample(run, min(samples, _available(run)), seed, None, progress)
    except ValueError as error:  # of a model that has no codes
        reason = f'<p class="notice">{escape(str(error))}</p>'
        return f"<figure><figcaption>{heading}</span></figcaption>{reason}</figure>"
    data = sheet_data(run, sample, 1, steps, budget)
    (base,), number = data, sample.index[0]
    latents = len(base["own"])
    names = "".join(
        f"<li>latent {latent} <span>{escape(sample.label(latent))}</span></li>" for latent in range(latents)
    )
    marks = "".join(f'<i style="--row:{latent};--step:{own}"></i>' for latent, own in enumerate(base["own"]))
    # A latent that takes fewer values leaves the rest of its row of the sheet empty.
    marks += "".join(
        f'<s style="--row:{latent};--step:{len(texts)}"></s>'
        for latent, texts in enumerate(base["texts"])
        if len(texts) < steps
    )
    original = png(run.dataset.images(sample.index[:1])[0])
    return (
        f'<figure><figcaption><img src="{original}" alt="The image"><div>{heading}, '
        f"image {number}</span></div></figcaption>"
        f'<div class="rows" style="--rows:{latents};--columns:{steps}">'
        f'<ol class="names">{names}</ol><div class="sheet">'
        f'<img src="{base["sheet"]}" alt="{escape(f"Traversals of {label}")}">{marks}</div></div></figure>'
    )


def _available(run: Run) -> int:
    from fqvae.data import split

    return len(split(run.dataset).test)
