"""The straight-through gap: what a decoder makes of soft samples, against what it makes of codes."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fqvae.models.autoencoder import Autoencoder, to_float
from fqvae.models.latents import Noise
from fqvae.runs import Run
from fqvae.runs.config import LOWEST_TEMPERATURE


def straight_through_gap(
    run: Run, index: NDArray[np.int64], seed: int = 0, *, batch_size: int = 256
) -> float:
    """Mean over images of |error of a soft sample - error of the nearest codes|.

    After Friede et al., Learning Disentangled Discrete Representations, ECML 2023: the absolute difference
    of the evidence lower bound with Gumbel-Softmax samples and with codes, for choosing between runs without
    labels. The KL term depends on neither, so the difference is that of the reconstructions; here their error
    is the mean squared one over an image's pixels. A small gap says that the decoder sees codes in training.

    Args:
        run: an open one whose estimator draws Gumbel-Softmax samples; `hard` is ignored.
        index: numbers of images, int64 (images,), at least one.
        seed: of the noise. The temperature is that of the run's next step.
        batch_size: images at a time; changes the last digits only.

    Returns:
        At least 0, in the units of the reconstruction error.
    """
    model, config = run.model, run.config
    temperature = math.exp(-run.step / (config.temperature_steps or config.steps))
    temperature = max(temperature, LOWEST_TEMPERATURE)  # that of the last step was still above it
    device = next(model.parameters()).device
    total = 0.0
    with torch.no_grad(), _soft(model):
        for start in range(0, len(index), batch_size):
            part = index[start : start + batch_size]
            images = to_float(run.dataset.images(part).to(device))
            drawn = model.draw(images, Noise(seed, start), temperature=temperature)
            soft, hard = model.decoder(drawn.quantized), model.decode(model.encode(images))
            total += (_errors(soft, images) - _errors(hard, images)).abs().sum().item()
    return total / len(index)


def _errors(decoded: Tensor, images: Tensor) -> Tensor:
    """Of each image, float64 (batch,)."""
    return (decoded - images).square().flatten(1).mean(1, dtype=torch.float64)


@contextlib.contextmanager
def _soft(model: Autoencoder) -> Iterator[None]:
    """Inside, samples are soft whatever the configuration says."""
    latent, config = model.latent, model.latent.config
    latent.config = dataclasses.replace(config, hard=False)
    quantizer = getattr(latent, "quantizer", None)  # that of scalars, which has a setting of its own
    if quantizer is not None:
        quantizer.hard = False
    try:
        yield
    finally:
        latent.config = config
        if quantizer is not None:
            quantizer.hard = config.hard
