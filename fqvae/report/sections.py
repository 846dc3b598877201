"""The parts of the page that are figures and tables, from the heading to the training curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fqvae.evaluation import diagnose
from fqvae.evaluation.measures import GROUPS, MEASURES, Measure, headlines
from fqvae.figures.curves import GUESSING
from fqvae.figures.naming import NONE
from fqvae.models.penalties import PENALTIES
from fqvae.report.html import bars, curve, escape, matrix
from fqvae.report.sample import Sample, value_text
from fqvae.runs import Run

_NAMES = {
    "rayshapes": "RayShapes",
    "shapes3d": "Shapes3D",
    "isaac3d": "Isaac3D",
    "mpi3d_complex": "MPI3D-Complex",
}
CURVE_NAMES = {
    "reconstruction": "reconstruction error",
    **{each.name: each.title for each in PENALTIES.values()},
    "discriminator": "discriminator's loss",
    "discriminator_accuracy": "discriminator's accuracy",
    "perplexity/pooled": "perplexity, all latents",
    "temperature": "temperature",
}


def facts(run: Run, name: str) -> tuple[str, str]:
    """The line above the heading and the list below it. name: the model's label."""
    latent, model = run.config.model.latent, run.model
    codes = f"{latent.size}"
    if run.discrete:
        shared = ", one codebook each" if latent.codebooks == "per_latent" else ""
        codes += f", {latent.codebook_size} codes{shared}"
    entries = {
        "Steps": f"{run.step:,}" + (f" of {run.config.steps:,}" if run.step != run.config.steps else ""),
        "Latents": codes,
        "Parameters": f"{sum(each.numel() for each in model.parameters()):,}",
        "Images": " \u00d7 ".join(map(str, run.dataset.image_shape[1:])),
        "Seed": str(run.config.seed),
    }
    listed = "".join(f"<div><dt>{key}</dt><dd>{escape(value)}</dd></div>" for key, value in entries.items())
    return (
        f"{name} on {_NAMES.get(run.dataset.name, run.dataset.name)}",
        f'<dl class="facts">{listed}</dl>',
    )


def scores_section(evaluation: Mapping[str, Any] | None, notice: str, conditions: str) -> str:
    """The scores, or the notice alone."""
    said = f'<p class="notice">{notice}</p>' if notice else ""
    if evaluation is None:
        return said
    scores: Mapping[str, float] = evaluation["scores"]
    headline = "".join(
        f"<div><dt>{escape(_heading(each))}</dt><dd>{_number(each, scores[each.name])}</dd></div>"
        for each in headlines(scores)
    )
    body = []
    for group in GROUPS:
        entries = [each for each in MEASURES if each.group == group and each.name in scores]
        if entries:
            body.append(f'<tr><th scope="rowgroup" colspan="3">{escape(group)}</th></tr>')
        body.extend(
            f'<tr><th scope="row">{escape(each.label)}</th><td>{_number(each, scores[each.name])}</td>'
            f"<td>{escape(each.meaning)}</td></tr>"
            for each in entries
        )
    said += "".join(
        f'<p class="notice">Caution: {escape(each)}.</p>' for each in evaluation["cautions"].values()
    )
    return (
        f'{said}<p>{conditions}</p><dl class="headline">{headline}</dl>'
        '<details><summary>All measures</summary><table class="scores">'
        f"<tbody>{''.join(body)}</tbody></table></details>"
    )


def diagnosis_section(evaluation: Mapping[str, Any] | None, columns: Mapping[str, Sequence[float]]) -> str:
    """What the measures and curves say went wrong; nothing without an evaluation."""
    if evaluation is None:
        return ""
    findings = diagnose(evaluation, columns)
    listed = "".join(
        f"<li><b>{escape(each.name.capitalize())}.</b> {escape(each.sentence)} "
        f"Try: {escape(each.advice)}</li>"
        for each in findings
    )
    said = (
        f"<ul>{listed}</ul>"
        if findings
        else "<p>None of the signs of failure that are looked for is there.</p>"
    )
    return (
        '<section aria-labelledby="diagnosis-title">'
        f'<h2 id="diagnosis-title">What went wrong, what to try</h2>{said}</section>'
    )


def matrices_section(sample: Sample, evaluation: Mapping[str, Any] | None) -> str:
    """NMI and importance, latents as rows in the order of the explorer; nothing without an evaluation."""
    if evaluation is None or evaluation["nmi"] is None or evaluation["importance"] is None:
        return ""
    remarks = {latent: sample.label(latent) for latent in sample.order}
    rows = [(f"latent {latent}", "" if each == NONE else each) for latent, each in remarks.items()]
    nmi = np.array(evaluation["nmi"]).T[sample.order]
    importance = np.array(evaluation["importance"])[sample.order]
    return (
        '<section aria-labelledby="matrices-title"><h2 id="matrices-title">Latents and factors</h2>'
        "<p>In a disentangled model each row has one strong cell: the latent tells of one factor.</p>"
        f'<div class="matrices">{matrix("Normalised mutual information", nmi, rows, sample.factors)}'
        f"{matrix('Importance for predicting the factor', importance, rows, sample.factors)}</div></section>"
    )


def usage_figures(sample: Sample) -> str:
    """A histogram for each latent: of its codes in the order of their values, or of its values."""
    return "\n".join(_histogram(sample, latent) for latent in sample.order)


def curves_section(columns: Mapping[str, Sequence[float]]) -> str:
    """The columns of metrics.csv that are worth a look, points that are not finite left out."""
    figures = [
        curve(steps, values, CURVE_NAMES[key], GUESSING.get(key))
        for key, (steps, values) in finite_curves(columns).items()
    ]
    if not figures:
        return '<p class="notice">There is no metrics.csv with training curves beside the checkpoint.</p>'
    return f'<div class="curves">{"".join(figures)}</div>'


def finite_curves(columns: Mapping[str, Sequence[float]]) -> dict[str, tuple[list[float], list[float]]]:
    """By column: the steps and values of each curve worth a look, where they are finite.

    columns: of metrics.csv. A curve without a finite point is left out.
    """
    steps, curves = np.asarray(columns.get("step", ()), float), {}
    for key in CURVE_NAMES:
        values = np.asarray(columns.get(key, ()), float)
        if len(values) == len(steps) and (fine := np.isfinite(values) & np.isfinite(steps)).any():
            curves[key] = steps[fine].tolist(), values[fine].tolist()
    return curves


def _heading(measure: Measure) -> str:
    """The short name where it is more than a letter, else the label."""
    return measure.short if len(measure.short) > 1 else measure.label.capitalize()


def _number(measure: Measure, value: float) -> str:
    if measure.name == "mse":
        return f"{value:.5f}" if value >= 1e-4 else f"{value:.2e}"
    return measure.text(value)


def _histogram(sample: Sample, latent: int) -> str:
    if sample.usage is None or sample.used is None:
        counts, edges = np.histogram(sample.codes[:, latent], bins=48)
        low, high = f"{edges[0]:.2f}", f"{edges[-1]:.2f}"
        told = f"values from {low} to {high}"
    else:
        line = sample.usage.counts[latent]
        values = sample.values
        order = np.arange(len(line))
        if values is not None:
            order = np.argsort(values if values.ndim == 1 else values[latent], kind="stable")
        counts = line[order]
        low, high = (value_text(sample, latent, int(each)) for each in (order[0], order[-1]))
        told = (
            f"{sample.usage.used[latent]} of {len(line)} codes used, "
            f"perplexity {sample.usage.perplexity[latent]:.1f}"
        )
    name = f"latent {latent}: {told}"
    label = f", {escape(sample.label(latent))}" if sample.label(latent) else ""
    return (
        f"<figure><figcaption><b>Latent {latent}</b>{label}<span>{told}</span>"
        f"</figcaption>{bars(counts, name)}"
        f'<div class="ends"><span>{low}</span><span>{high}</span></div></figure>'
    )
