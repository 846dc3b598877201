"""Put the page together and write it."""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
import string
from pathlib import Path
from typing import Any

import fqvae
from fqvae.data import split
from fqvae.evaluation import find_evaluation
from fqvae.evaluation.information import factor_shares
from fqvae.figures.naming import RULE
from fqvae.files import check_writable, write_whole
from fqvae.report.explorer import TooLargeError, explorer_data, pairs, sliders, thumbnails
from fqvae.report.html import escape, json_block
from fqvae.report.sample import Sample, draw_sample
from fqvae.report.sections import (
    curves_section,
    diagnosis_section,
    facts,
    matrices_section,
    scores_section,
    usage_figures,
)
from fqvae.runs import Run, read_columns
from fqvae.runs.names import CURVES

LIMIT = 5_000_000  # bytes of a page
_RESERVE = 200_000  # of those, for all that is no picture
_PAIRS = 12
_FILES = importlib.resources.files("fqvae.report")


def build_report(
    run: Run,
    out: str | Path,
    *,
    images: int | None = None,
    steps: int = 12,
    samples: int = 2_000,
    seed: int = 0,
    progress: bool = False,
) -> Path:
    """Write a run's report: one HTML file that loads nothing else, of at most 5 MB.

    It shows the run's scores if `fqvae evaluate` has written them for this checkpoint; else it says why not.

    Args:
        run: an open one.
        out: the file; it is written whole or not at all.
        images: how many the explorer has, at least 1 and at most samples; None: 8, or all there are.
        steps: of its sliders, at least 2.
        samples: held-out images that are encoded, at least 2: which codes a latent uses is counted there. No
            more than the test split has are taken.
        seed: of their choice. The first ones are shown.
        progress: show progress bars on standard error.

    Returns:
        The file.

    Raises:
        ValueError: an option out of range; a model that has no codes, because none of its latents changes or
            they are not finite; a damaged metrics.csv; pictures that do not fit into 5 MB.
        OSError: the file cannot be written; where its folder does not allow it, before the work.
    """
    for name, value, least in (("images", images, 1), ("steps", steps, 2), ("samples", samples, 2)):
        if value is not None and value < least:
            raise ValueError(f"{name} must be at least {least}, but was {value}")
    samples = min(samples, len(split(run.dataset).test))
    images = min(8, samples) if images is None else images
    if images > samples:
        raise ValueError(f"images must be at most {samples}, the held-out images encoded, but was {images}")
    out = Path(out)
    if out.is_dir():
        raise IsADirectoryError(f"out must be a file, but {out} is a folder")
    check_writable(out.parent)
    evaluation, missing = find_evaluation(run.folder, run.sha256)
    notice = escape(f"There are no measures here: {missing}. Then write the report anew.") if missing else ""
    shares = None if evaluation is None or evaluation["nmi"] is None else factor_shares(evaluation)
    curves = run.folder / CURVES
    columns = read_columns(curves) if curves.is_file() else {}
    sample = draw_sample(run, samples, seed, shares, progress)

    bases, shown = thumbnails(run, sample, images), pairs(run, sample, min(_PAIRS, samples))
    data = explorer_data(run, sample, images, steps, LIMIT - _RESERVE - len(bases) - len(shown))
    script = asset("decoder.js") + asset("page.js")
    kind, listed = facts(run, run.config.model.label)
    page = string.Template(asset("page.html")).substitute(
        name=escape(run.folder.resolve().name),
        kind=escape(kind),
        facts=listed,
        style=asset("page.css"),
        script=script,
        script_hash=f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}",
        over=_over(sample),
        decoded=_decoded(data),
        thumbnails=bases,
        sliders=sliders(sample, data),
        label_note=_label_note(sample, evaluation),
        diagnosis=diagnosis_section(evaluation, columns),
        scores=scores_section(evaluation, notice, _conditions(evaluation)),
        pairs=shown,
        reconstruction_note="Held-out images above, what the model makes of their codes below.",
        matrices=matrices_section(sample, evaluation),
        usage_title="Use of the codes" if run.discrete else "Values of the latents",
        usage_note=_usage_note(sample),
        usage=usage_figures(sample),
        curves=curves_section(columns),
        footer=_footer(run, data.get("lossless", True)),
        data=json_block(data),
    )
    content = page.encode()
    if len(content) > LIMIT:
        raise TooLargeError(
            f"the page would take {len(content):,} bytes, more than {LIMIT:,}: choose fewer images"
        )
    write_whole(out, content)
    return out


def _over(sample: Sample) -> str:
    if sample.used is None:
        return "from the 1st to the 99th percentile of its values"
    if sample.values is None:
        return "over the codes that it really uses (they are vectors, in the order of their numbers)"
    return "over the codes that it really uses, in the order of their values"


def _decoded(data: dict[str, Any]) -> str:
    if data["decoder"] is not None:
        return (
            "Move as many as you like: the page runs the model's decoder itself. The strip below a slider "
            "shows what its steps give while the other latents stay where they are."
        )
    return (
        "Every picture was decoded beforehand with one latent moved and the others as they were, so moving "
        f"another slider puts the first one back; {escape(data['reason'])}."
    )


def _label_note(sample: Sample, evaluation: dict[str, Any] | None) -> str:
    if not sample.factors:
        return "The images have no labels, so that no latent is named after a factor."
    source = "as evaluated" if evaluation else f"estimated here from {len(sample.index):,} images"
    return f"{RULE} The share is the normalised mutual information (NMI, {source})."


def _conditions(evaluation: dict[str, Any] | None) -> str:
    if evaluation is None:
        return ""
    options, labels = evaluation["options"], evaluation["data"]["factor_names"]
    images = "images of the whole set" if options["protocol"] == "authors" else "held-out images"
    classifier = f"; DCI with the classifier “{escape(options['classifier'])}”" if labels else ""
    unlabelled = "" if labels else " The images have no labels: only measures that need none are here."
    missing = f" Not measured: {escape(', '.join(evaluation['missing']))}." if evaluation["missing"] else ""
    return (
        f"Measured on {images}, {options['train']:,} to fit and {options['test']:,} to test, "
        f"seed {options['seed']}{classifier}.{unlabelled}{missing} "
        "Compare only measures of equal sample sizes, classifiers and protocols."
    )


def _usage_note(sample: Sample) -> str:
    told = f"How often each latent takes each {'value' if sample.used is None else 'code'} "
    told += f"on {len(sample.index):,} held-out images"
    return told + (", from the smallest value to the largest." if sample.values is not None else ".")


def _footer(run: Run, lossless: bool) -> str:
    stored = "" if lossless else " To keep the file small, the decoded images are stored with slight losses."
    return (
        f"Written by fqvae {fqvae.__version__}. Checkpoint {escape(run.checkpoint.name)}, "
        f"SHA-256 {run.sha256}.{stored}"
    )


def asset(name: str) -> str:
    """A file of this package, as text."""
    return (_FILES / name).read_text(encoding="utf-8")
