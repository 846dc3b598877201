"""What a sweep writes about its runs: the table, the plots and the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from matplotlib.figure import Figure

from fqvae.evaluation.measures import headlines
from fqvae.evaluation.table import Comparison, comparison
from fqvae.figures import Point, measures_against, save
from fqvae.files import write_together
from fqvae.report.compare import Compared, build_comparison
from fqvae.sweep.file import PLOT, RESULTS, Sweep
from fqvae.sweep.grid import short_names
from fqvae.sweep.plan import Job, steps_missing
from fqvae.sweep.settings import swept

_LONGEST = 40  # letters of a value that stands under an axis; a longer one stands as the name of its run


def write_results(sweep: Sweep, jobs: Sequence[Job], failures: Mapping[Job, str], out: Path) -> str | None:
    """Write and print the table of the runs that are trained to the last step and evaluated; plots; a page.

    The others are named below it, with their step and the reason. Without any run there is no table, and
    nothing is written.

    Args:
        sweep: whose runs they are.
        jobs: all of the sweep, in the order of the table.
        failures: why a run is not trained and evaluated.
        out: the sweep's folder.

    Returns:
        Why the page could not be written; None if it was, or there is nothing to show.
    """
    reasons = {job: reason for job in jobs if (reason := _reason(job, failures.get(job))) is not None}
    finished = [job for job in jobs if job not in reasons]
    if not finished:
        return None
    table = compare(finished)
    left_out = "".join(f"\nLeft out: {job.title}: {reason}\n" for job, reason in reasons.items())
    markdown = table.markdown() + left_out
    write_together({out / RESULTS[0]: markdown, out / RESULTS[1]: table.csv()})
    print(markdown)
    print(f"the table is in {out / RESULTS[0]} and {out / RESULTS[1]}")
    for name, figure in plots(sweep, table).items():
        print(f"a plot is in {' and '.join(map(str, save(figure, out / name)))}")
    try:
        page = build_comparison(_shown(finished), out / RESULTS[2], title=f"Sweep {sweep.name}")
    except (ValueError, OSError) as error:  # pictures too large, images that are gone
        return str(error)
    print(f"a page is in {page}")
    return None


def _shown(jobs: Sequence[Job]) -> list[Compared]:
    """The runs of each configuration beside each other, the first of them with its traversals."""
    groups: dict[str, list[Job]] = {}
    for job in jobs:
        groups.setdefault(job.name, []).append(job)
    return [
        Compared(job.folder, job.title, name, traversal=job is group[0])
        for name, group in groups.items()
        for job in group
    ]


def compare(jobs: Sequence[Job]) -> Comparison:
    """The comparison of runs, with the sweep's own names and in its order."""
    folders: dict[str, list[Path]] = {}
    for job in jobs:
        folders.setdefault(job.name, []).append(job.folder)
    lines = [replace(comparison(runs).lines[0], name=name) for name, runs in folders.items()]
    several = len({job.config.data.arguments for job in jobs}) > 1
    table = comparison([job.folder for job in jobs], several_sets=several)
    return replace(table, lines=tuple(lines))


def plots(sweep: Sweep, table: Comparison) -> dict[str, Figure]:
    """By file name: the measures against each setting in which the runs differ, a line for each other one."""
    settings = swept(sweep, [line.name for line in table.lines])
    labels, figures = short_names(list(settings)), {}
    for key, values in settings.items():
        long = any(len(str(value)) > _LONGEST for value in values.values())
        column = {name: name for name in values} if long else values
        points = []
        for line in table.lines:
            others = (f"{labels[each]} {settings[each][line.name]}" for each in settings if each != key)
            points.append(
                Point(column[line.name], ", ".join(others), len(line.seeds), line.mean, line.deviation)
            )
        shown = headlines({name: None for line in table.lines for name in line.mean})
        names = {each.name: each.short or each.label for each in shown}
        figures[f"{PLOT}{labels[key]}"] = measures_against(key, points, names)
    return figures


def _reason(job: Job, failure: str | None) -> str | None:
    """Why a run is not in the table; None if it belongs there."""
    try:
        missing = steps_missing(job)
    except (ValueError, OSError) as error:  # a damaged checkpoint has no step to tell
        return failure or str(error)
    if failure is None:
        return missing
    # The failure of a training that ended early names the step already.
    step = missing or f"step {job.config.steps:,} of {job.config.steps:,}"
    return failure if step in failure else f"{step}: {failure}"
