"""The parts of the page that are figures and tables, from the heading to the training curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fqvae.report.html import bars, curve, escape, matrix
from fqvae.report.sample import Sample, value_text
from fqvae.runs import Run

_NAMES = {
    "ae": "AE",
    "bioae": "BioAE",
    "vae": "VAE",
    "factorvae": "FactorVAE",
    "qlae": "QLAE",
    "dvae": "dVAE",
    "factordvae": "FactorDVAE",
    "qvae": "QVAE",
    "factorqvae": "FactorQVAE",
    "vector": "Vector codes",
    "custom": "A model of its own",
    "rayshapes": "RayShapes",
    "shapes3d": "Shapes3D",
    "isaac3d": "Isaac3D",
    "mpi3d_complex": "MPI3D-Complex",
}
_HEADLINE = {
    "disentanglement": "Disentanglement",
    "completeness": "Completeness",
    "informativeness": "Informativeness",
    "infom": "InfoM",
    "infoc": "InfoC",
    "infoe": "InfoE",
    "mse": "MSE",
}
_GROUPS: dict[str, dict[str, tuple[str, str]]] = {
    "DCI": {
        "disentanglement": ("disentanglement", "how far each latent tells of one factor only"),
        "completeness": ("completeness", "how far each factor is told by one latent only"),
        "informativeness": ("informativeness", "factors predicted right from the codes of new images"),
        "informativeness_train": ("informativeness, fitted images", "the same on the images fitted to"),
    },
    "InfoMEC": {
        "infom": ("modularity (InfoM)", "how far each latent tells of one factor only"),
        "infom_corrected": ("modularity, corrected", "without the information that chance explains"),
        "infoc": ("compactness (InfoC)", "how far each factor is told by one latent only"),
        "infoc_corrected": ("compactness, corrected", "without the information that chance explains"),
        "infoe": ("explicitness (InfoE)", "what a linear model reads off the codes"),
    },
    "Others": {
        "mig": ("MIG", "lead of the latent that tells most of a factor, in information"),
        "sap": ("SAP", "the same lead, in the error of a linear predictor"),
        "modularity": ("modularity", "Ridgeway and Mozer's"),
        "explicitness": ("explicitness", "Ridgeway and Mozer's"),
        "factorvae_score": ("FactorVAE score", "a fixed factor recognised by the latent that varies least"),
        "beta_vae_score": ("β-VAE score", "a fixed factor recognised by a linear classifier"),
        "total_correlation": ("total correlation", "of the codes, in nats; 0 for independent latents"),
    },
    "Codes and images": {
        "perplexity": ("perplexity", "effective number of codes, mean over the latents"),
        "codes_used": ("codes used", "mean over the latents"),
        "mse": ("mean squared error", "of reconstructions, pixels from 0 to 1"),
    },
}
_CURVES = {
    "reconstruction": "reconstruction error",
    "kl": "KL divergence, nats",
    "total_correlation": "total correlation, nats",
    "nonnegativity": "negative part of z",
    "activity": "activity, mean of z²",
    "commitment": "commitment",
    "codebook": "codebook",
    "discriminator": "discriminator's loss",
    "discriminator_accuracy": "discriminator's accuracy",
    "perplexity/pooled": "perplexity, all latents",
    "temperature": "temperature",
}


def facts(run: Run, name: str) -> tuple[str, str]:
    """The line above the heading and the list below it. name: the model's."""
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
        f"{_NAMES.get(name, name)} on {_NAMES.get(run.dataset.name, run.dataset.name)}",
        f'<dl class="facts">{listed}</dl>',
    )


def scores_section(evaluation: Mapping[str, Any] | None, notice: str, conditions: str) -> str:
    """The scores, or the notice alone."""
    said = f'<p class="notice">{notice}</p>' if notice else ""
    if evaluation is None:
        return said
    scores: Mapping[str, float] = evaluation["scores"]
    headline = "".join(
        f"<div><dt>{label}</dt><dd>{_number(key, scores[key])}</dd></div>"
        for key, label in _HEADLINE.items()
        if key in scores
    )
    body = []
    for group, entries in _GROUPS.items():
        body.append(f'<tr><th scope="rowgroup" colspan="3">{group}</th></tr>')
        body.extend(
            f'<tr><th scope="row">{label}</th><td>{_number(key, scores[key])}</td><td>{meaning}</td></tr>'
            for key, (label, meaning) in entries.items()
            if key in scores
        )
    return (
        f'{said}<p>{conditions}</p><dl class="headline">{headline}</dl>'
        f'<details><summary>All scores</summary><table class="scores"><tbody>{"".join(body)}</tbody></table>'
        "</details>"
    )


def matrices_section(sample: Sample, evaluation: Mapping[str, Any] | None) -> str:
    """NMI and importance, latents as rows in the order of the explorer; nothing without an evaluation."""
    if evaluation is None:
        return ""
    rows = [(f"latent {latent}", sample.label(latent)) for latent in sample.order]
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
    figures = [curve(steps, values, name) for name, (steps, values) in finite_curves(columns).items()]
    if not figures:
        return '<p class="notice">There is no metrics.csv with training curves beside the checkpoint.</p>'
    return f'<div class="curves">{"".join(figures)}</div>'


def finite_curves(columns: Mapping[str, Sequence[float]]) -> dict[str, tuple[list[float], list[float]]]:
    """By name for people: the steps and values of each curve worth a look, where they are finite.

    columns: of metrics.csv. A curve without a finite point is left out.
    """
    steps, curves = np.asarray(columns.get("step", ()), float), {}
    for key, name in _CURVES.items():
        values = np.asarray(columns.get(key, ()), float)
        if len(values) == len(steps) and (fine := np.isfinite(values) & np.isfinite(steps)).any():
            curves[name] = steps[fine].tolist(), values[fine].tolist()
    return curves


def _number(key: str, value: float) -> str:
    if key == "mse":
        return f"{value:.5f}" if value >= 1e-4 else f"{value:.2e}"
    return f"{value:.1f}" if key in ("perplexity", "codes_used") else f"{value:.3f}"


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
    return (
        f"<figure><figcaption><b>Latent {latent}</b>, {escape(sample.label(latent))}<span>{told}</span>"
        f"</figcaption>{bars(counts, name)}"
        f'<div class="ends"><span>{low}</span><span>{high}</span></div></figure>'
    )
