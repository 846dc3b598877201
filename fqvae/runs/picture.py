"""Images above their reconstructions, as one picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fqvae.files import write_whole
from fqvae.models.autoencoder import to_uint8
from fqvae.runs.run import Run


@torch.no_grad()
def write_reconstructions(run: Run, index: NDArray[np.int64], path: Path) -> None:
    """Write the images of these numbers and their reconstructions as a PNG file. Raises OSError."""
    from PIL import Image

    images = run.dataset.images(index)
    reconstructed = to_uint8(run.model(images.to(next(run.model.parameters()).device))).cpu()
    grid = picture(images, reconstructed)
    scale = max(1, 96 // run.model.image_size)
    pixels = grid.repeat_interleave(scale, 0).repeat_interleave(scale, 1).numpy()
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    write_whole(path, lambda file: image.save(file, format="PNG"))


def picture(images: Tensor, reconstructions: Tensor, columns: int = 8) -> Tensor:
    """A grid of images, each above its reconstruction: (count, C, S, S) both, to (H, W, C), all uint8."""
    count, channels, size, _ = images.shape
    pairs = torch.stack([images, reconstructions], 1)  # (count, 2, C, S, S)
    rows = -(-count // columns)
    grid = torch.full((rows * columns, 2, channels, size + 2, size + 2), 255, dtype=torch.uint8)
    grid[:count, :, :, 1:-1, 1:-1] = pairs
    grid = grid.view(rows, columns, 2, channels, size + 2, size + 2).permute(0, 2, 4, 1, 5, 3)
    return grid.reshape(rows * 2 * (size + 2), columns * (size + 2), channels)
