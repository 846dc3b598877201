"""Bias and variance of each estimator's gradient, against the exact gradient of the expected loss.

    python benchmarks/estimator_bias.py                  # prints the tables of docs/estimators.md
    python benchmarks/estimator_bias.py --plot docs/estimators.svg

Three latents choose one of eight codes each, by `gumbel_quantize`; a loss is computed of the three values.
All 8 ** 3 outcomes are enumerated, so that the expected loss and its gradient with respect to z and to the
codebook are exact. The estimators' means and variances are over many rows of one call, in float64.
"""

from __future__ import annotations

import argparse
import itertools
import pathlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fqvae_kernels import gumbel_quantize

CODES, LATENTS = 8, 3
TEMPERATURES = (0.1, 0.5, 1.0)
ESTIMATORS = {
    "gumbel, soft": {"estimator": "gumbel", "hard": False},
    "gumbel, hard": {"estimator": "gumbel", "hard": True},
    "straight_through": {"estimator": "straight_through"},
    "reinmax": {"estimator": "reinmax"},
}
# What the encoder gives, and what the losses would have it be.
Z = torch.tensor([-0.8, 0.15, 1.1], dtype=torch.float64)
TARGET = torch.tensor([0.4, -0.5, 0.3], dtype=torch.float64)
CODEBOOK = torch.tensor([-1.9, -1.2, -0.7, -0.2, 0.25, 0.8, 1.3, 2.0], dtype=torch.float64)


def quadratic(values: Tensor) -> Tensor:
    """The squared error of a linear decoder of the three values, ``(..., 3)`` to ``(...)``."""
    mixed = values.sum(dim=-1, keepdim=True) * 0.5
    return (values + mixed - TARGET).square().sum(dim=-1)


def logistic(values: Tensor) -> Tensor:
    """The cross-entropy of three pixels with logits that are linear in the values: curved, but gently."""
    logits = 2.0 * values + values.sum(dim=-1, keepdim=True)
    return (torch.nn.functional.softplus(logits) - logits * (TARGET > 0)).sum(dim=-1)


def wavy(values: Tensor) -> Tensor:
    """Waves with a period of four or five codes, and a bounded function of the product."""
    waves = torch.sin(2.5 * (values - TARGET)).sum(dim=-1)
    return waves + torch.tanh(2.0 * values.prod(dim=-1))


LOSSES: dict[str, Callable[[Tensor], Tensor]] = {"quadratic": quadratic, "logistic": logistic, "wavy": wavy}


def exact_gradients(loss: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Gradients of the expected loss with respect to z and the codebook: all outcomes are enumerated."""
    z, codebook = Z.clone().requires_grad_(), CODEBOOK.clone().requires_grad_()
    log_posterior = torch.log_softmax(-((z[:, None] - codebook) ** 2), dim=-1)
    outcomes = torch.tensor(list(itertools.product(range(CODES), repeat=LATENTS)))
    probability = log_posterior[torch.arange(LATENTS), outcomes].sum(dim=-1).exp()
    expected = (probability * loss(codebook[outcomes])).sum()
    of_z, of_codebook = torch.autograd.grad(expected, (z, codebook))
    return of_z, of_codebook


@dataclass
class Quality:
    """An estimator's gradient of z, against the exact one; norms are over the latents."""

    name: str
    loss: str
    temperature: float
    bias: float  # |mean - exact| / |exact|
    deviation: float  # of one sample, over |exact|
    cosine: float  # of mean and exact
    codebook_bias: float
    uncertainty: float  # of the bias: the standard error of the mean, over |exact|


def measure(
    name: str, loss_name: str, temperature: float, rows: int, seed: int, backend: str | None
) -> Quality:
    loss = LOSSES[loss_name]
    exact, exact_codebook = exact_gradients(loss)
    z = Z.expand(rows, LATENTS).clone().requires_grad_()
    codebook = CODEBOOK.clone().requires_grad_()
    result = gumbel_quantize(
        z, codebook, temperature=temperature, seed=seed, return_kl=False, backend=backend, **ESTIMATORS[name]
    )
    of_z, of_codebook = torch.autograd.grad(loss(result.quantized).sum(), (z, codebook))
    mean, size = of_z.mean(dim=0), exact.norm()
    deviation = of_z.var(dim=0).sum().sqrt()
    return Quality(
        name,
        loss_name,
        temperature,
        bias=((mean - exact).norm() / size).item(),
        deviation=(deviation / size).item(),
        cosine=torch.cosine_similarity(mean, exact, dim=0).item(),
        codebook_bias=((of_codebook / rows - exact_codebook).norm() / exact_codebook.norm()).item(),
        uncertainty=(deviation / size).item() / rows**0.5,
    )


def measure_all(rows: int, seed: int, backend: str | None = None) -> list[Quality]:
    return [
        measure(name, loss, temperature, rows, seed, backend)
        for loss, temperature, name in itertools.product(LOSSES, TEMPERATURES, ESTIMATORS)
    ]


def table(found: list[Quality], loss: str) -> str:
    """Markdown."""
    lines = [
        "| temperature | estimator | bias | standard deviation | cosine | bias, codebook |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {q.temperature} | {q.name} | {q.bias:.3f} ± {q.uncertainty:.3f} | {q.deviation:.2f} "
        f"| {q.cosine:.3f} | {q.codebook_bias:.3f} |"
        for q in found
        if q.loss == loss
    ]
    return "\n".join(lines)


def plot(found: list[Quality], path: pathlib.Path) -> None:
    """Bias against deviation, one panel for each loss; a point for each temperature."""
    import matplotlib
    import matplotlib.ticker

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    # The same file for the same figures, and small: text as text.
    plt.rcParams.update({"svg.hashsalt": "estimators", "svg.fonttype": "none"})
    figure, panels = plt.subplots(1, len(LOSSES), figsize=(10.0, 3.4), sharey=True)
    for panel, loss in zip(panels, LOSSES, strict=True):
        for name, marker in zip(ESTIMATORS, "os^D", strict=True):
            points = [q for q in found if q.loss == loss and q.name == name]
            panel.plot([q.deviation for q in points], [q.bias for q in points], marker=marker, label=name)
            for q in points:
                panel.annotate(
                    f"{q.temperature:g}",
                    (q.deviation, q.bias),
                    (4, 4),
                    textcoords="offset points",
                    fontsize=7,
                )
        panel.set_title(f"{loss} loss")
        panel.set_xscale("log")
        panel.set_yscale("log")
        panel.set_xlim(0.9, 16.0)
        panel.set_ylim(0.007, 3.0)
        for axis, ticks in ((panel.xaxis, (1, 2, 5, 10)), (panel.yaxis, (0.01, 0.1, 1))):
            axis.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks])
            axis.set_minor_locator(matplotlib.ticker.NullLocator())
        panel.set_xlabel("standard deviation of a sample")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("bias")
    panels[-1].legend(fontsize=8, loc="lower left")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=200_000, help="samples for each mean and variance")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--backend", help="the best one for the CPU if it is left out")
    parser.add_argument("--plot", type=pathlib.Path, help="where to draw the plot")
    options = parser.parse_args()
    found = measure_all(options.rows, options.seed, options.backend)
    for loss in LOSSES:
        print(f"\nA {loss} loss:\n\n{table(found, loss)}")
    if options.plot is not None:
        plot(found, options.plot)


if __name__ == "__main__":
    main()
