"""The figures of a run: what `fqvae traverse`, `fqvae codes` and `fqvae plot` draw."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any, TypeGuard

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fqvae.evaluation.information import factor_shares
from fqvae.figures.animation import animate
from fqvae.figures.codes import code_usage, value_histograms
from fqvae.figures.images import traversals
from fqvae.figures.matrices import heatmap
from fqvae.figures.naming import NONE, RULE, named_factor, readable
from fqvae.figures.style import two_decimals
from fqvae.figures.traversal import spread_codes, spread_values, traverse, used_codes
from fqvae.metrics import code_usage as count_codes
from fqvae.runs import Encoded, Run

Evaluation = Mapping[str, Any]  # what `fqvae.evaluation.read_evaluation` returns


def code_values(run: Run) -> NDArray[np.float32] | None:
    """The codebook of a discrete model, (K,) or (M, K); None for vectors, which have no order."""
    if run.config.model.latent.kind == "vector":
        return None
    codebook: NDArray[np.float32] = run.model.latent.codebook.detach().cpu().numpy()
    return codebook


def run_traversals(
    run: Run, encoded: Encoded, base: int, steps: int = 8, evaluation: Evaluation | None = None
) -> Figure:
    """A traversal of one image.

    Args:
        run: an open one.
        encoded: images of it, the one that is moved among them.
        base: its place among them.
        steps: codes in a row, at most.
        evaluation: of the run; with it each row says which factor its latent tells most about.

    Raises:
        ValueError: steps below 1.
    """
    taken, details, note = _steps(run, encoded, base, steps)
    if _has_labels(evaluation):
        names = [f"{name} {two_decimals(share)}" if share else name for name, share in _carried(evaluation)]
        details = [f"{name}\n{codes}".strip() for name, codes in zip(names, details, strict=True)]
        note += f" {RULE} The number is that share."
    return traversals(
        [row.numpy() for row in traverse(run.model, torch.as_tensor(encoded.codes[base]), taken).images],
        [f"latent {latent}" for latent in range(len(taken))],
        details=details,
        values=[_texts(run, latent, row) for latent, row in enumerate(taken)],
        current=[
            int(np.flatnonzero(row == code)[0]) for row, code in zip(taken, encoded.codes[base], strict=True)
        ],
        title=f"Latent traversals of {_title(run)}",
        note=f"{note} Framed: the image's own, the same picture in every row.",
        original=run.dataset.images(encoded.index[base : base + 1])[0].numpy(),
        caption=_caption(run, encoded, base),
    )


def run_animation(
    run: Run, encoded: Encoded, base: int, steps: int = 10, evaluation: Evaluation | None = None
) -> bytes:
    """The traversal of one image as a GIF, see `animate`. Arguments as for `run_traversals`."""
    taken, _, _ = _steps(run, encoded, base, steps)
    labels = [f"latent {latent}" for latent in range(len(taken))]
    if _has_labels(evaluation):
        named = [name for name, _ in _carried(evaluation)]
        labels = [
            label if name == NONE else f"{latent}: {name}"
            for latent, (label, name) in enumerate(zip(labels, named, strict=True))
        ]
    rows = traverse(run.model, torch.as_tensor(encoded.codes[base]), taken).images
    return animate([row.numpy() for row in rows], labels)


def run_codes(run: Run, encoded: Encoded, evaluation: Evaluation | None = None) -> Figure:
    """Histograms of the codes, or of the values, that each latent has on the images."""
    labels, note = [f"latent {latent}" for latent in range(encoded.codes.shape[1])], ""
    if _has_labels(evaluation):
        labels = [f"{label}: {name}" for label, (name, _) in zip(labels, _carried(evaluation), strict=True)]
        note = textwrap.fill(RULE, 110)
    title = f"{_title(run)}, {len(encoded.index):,} held-out images"
    if not run.discrete:
        return value_histograms(encoded.codes, labels=labels, title=f"Latent values of {title}", note=note)
    counts, values = _counts(run, encoded), code_values(run)
    return code_usage(counts, values, labels=labels, title=f"Codes used by {title}", note=note)


def score_heatmaps(evaluation: Evaluation) -> dict[str, Figure]:
    """By file name: mutual information and importance, factors against latents; information among latents.

    What the evaluation lacks, as the first two without labels, is left out.
    """
    factors = [readable(name) for name in evaluation["data"]["factor_names"]]
    name = f"{evaluation['model']}, step {evaluation['checkpoint']['step']:,}"
    figures = {}
    for key, transposed, rows, title, scale in _HEATMAPS:
        if evaluation[key] is None:
            continue
        table = np.transpose(evaluation[key]) if transposed else np.asarray(evaluation[key])
        table = np.minimum(table, 1.0)  # what nearest neighbours estimate may exceed 1
        latents = [str(latent) for latent in range(table.shape[1])]
        figures[key] = heatmap(
            table,
            latents if rows else factors,
            latents,
            title=f"{title}\n{name}",
            row_axis=rows,
            column_axis="latent",
            scale=scale,
        )
    return figures


# Key in metrics.json, whether latents are its rows, the axis of the figure's rows, title, scale.
_HEATMAPS = (
    ("nmi", False, "", "Information about factors in latents", "I(factor; latent) / H(factor)"),
    ("importance", True, "", "Importance of latents for factors", "importance (DCI)"),
    ("nmi_latents", False, "latent", "Dependence among latents", "normalised mutual information"),
)


def _has_labels(evaluation: Evaluation | None) -> TypeGuard[Evaluation]:
    """Whether there is an evaluation that knows how latents and factors go together."""
    return evaluation is not None and evaluation["nmi"] is not None


def _steps(run: Run, encoded: Encoded, base: int, steps: int) -> tuple[list[NDArray[Any]], list[str], str]:
    """What each latent takes, how many codes it uses ("" without codes), and the note that says so."""
    codes, samples = encoded.codes[base], f"{len(encoded.index):,} held-out images"
    if not run.discrete:
        columns = zip(encoded.codes.T, codes, strict=True)
        note = f"Each row moves one latent from the 1st to the 99th percentile of its values on {samples}."
        return [spread_values(column, steps, value) for column, value in columns], [""] * len(codes), note
    used = used_codes(_counts(run, encoded), code_values(run))
    order = "values" if code_values(run) is not None else "indices, since vectors have no order"
    note = f"Each row moves one latent over codes that it uses on {samples}, in the order of their {order}."
    details = ["1 code" if len(each) == 1 else f"{len(each)} codes" for each in used]
    return [spread_codes(each, steps, code) for each, code in zip(used, codes, strict=True)], details, note


def _carried(evaluation: Evaluation) -> list[tuple[str, float]]:
    """For each latent the factor that it is named after and the share of it that it carries, or `NONE`, 0."""
    names = evaluation["data"]["factor_names"]
    found = [(named_factor(column), column) for column in factor_shares(evaluation).T]
    return [
        (NONE, 0.0) if factor is None else (readable(names[factor]), float(column[factor]))
        for factor, column in found
    ]


def _counts(run: Run, encoded: Encoded) -> NDArray[np.int64]:
    return count_codes(encoded.codes, run.config.model.latent.codebook_size).counts


def _texts(run: Run, latent: int, taken: NDArray[Any]) -> list[str]:
    """The values of codes, or of a continuous latent, or the indices of codes without values."""
    if not run.discrete:
        return [two_decimals(value) for value in taken]
    values = code_values(run)
    if values is None:
        return [str(code) for code in taken]
    own = values if values.ndim == 1 else values[latent]
    return [two_decimals(own[code]) for code in taken]


def _caption(run: Run, encoded: Encoded, base: int) -> str:
    names, numbers = run.dataset.factor_names, encoded.factors[base].tolist()
    # What somebody's own labels said, where they were no numbers from 0.
    known: tuple[tuple[str, ...], ...] | None = getattr(run.dataset, "factor_values", None)
    values = numbers if known is None else [each[n] for each, n in zip(known, numbers, strict=True)]
    factors = ", ".join(f"{readable(name)} {value}" for name, value in zip(names, values, strict=True))
    return f"number {encoded.index[base]} of {run.dataset.name}\n{factors}".rstrip()


def _title(run: Run) -> str:
    return f"{run.folder.resolve().name}, step {run.step:,}"
