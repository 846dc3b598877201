"""TensorBoard: metrics, and at checkpoints reconstructions, traversals and histograms of the codes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers import TensorBoardLogger
from numpy.typing import NDArray
from torch import Tensor

from fqvae.data import ImageDataset
from fqvae.models.autoencoder import Autoencoder, to_uint8
from fqvae.runs.picture import picture

TIMES = 20  # in a run, at most
_IMAGES, _LATENTS, _STEPS = 16, 16, 8  # reconstructed; latents shown; values that each of them takes
_ENCODED = 256  # images whose codes are counted
_PIXELS = 128  # height and width of an image shown, at most
_BINS = 256


class Board(TensorBoardLogger):
    """Lightning's logger, which writes hparams.yaml besides: config.yaml has what would be in it."""

    @rank_zero_only
    def save(self) -> None:
        """Write what is not written yet."""
        self.experiment.flush()


class BoardPictures:
    """Writes pictures of a model, at most `TIMES` in a run of so many steps.

    index: the images' numbers, of which the first are shown.
    """

    def __init__(self, board: Board, dataset: ImageDataset, index: NDArray[np.int64], steps: int) -> None:
        self._board, self._dataset, self._index, self._steps = board, dataset, index[:_ENCODED], steps
        self._every = -(-steps // TIMES)
        self._next = self._every

    @torch.no_grad()
    def write(self, model: Autoencoder, step: int) -> None:
        """Write them, if it is time: reconstructions, traversals and histograms. The model stays as it is."""
        if step < self._next and step != self._steps:
            return
        self._next = step + self._every
        writer = self._board.experiment
        with _as_evaluated(model):
            images = self._dataset.images(self._index)
            device = next(model.parameters()).device
            codes = torch.cat([model.encode(part.to(device)) for part in images.split(64)])
            shown = images[:_IMAGES]
            grid = picture(_small(shown), _small(to_uint8(model.decode(codes[:_IMAGES])).cpu()))
            writer.add_image("reconstructions", grid, step, dataformats="HWC")
            writer.add_image("traversals", _traversals(model, codes), step, dataformats="HWC")
            bins = min(model.config.latent.codebook_size, _BINS) if model.latent.discrete else 64
            for latent in range(min(codes.shape[1], _LATENTS)):
                values = codes[:, latent].float().cpu()
                writer.add_histogram(f"codes/{latent:02d}", values, step, bins=bins)


def _traversals(model: Autoencoder, codes: Tensor) -> Tensor:
    """The first image with one latent at a time moved, a row for each: uint8 (H, W, C)."""
    rows = []
    for latent in range(min(codes.shape[1], _LATENTS)):
        taken = _spread(model, codes[:, latent], latent)
        moved = codes[:1].repeat(_STEPS, 1)
        moved[:, latent] = taken
        rows.append(_small(to_uint8(model.decode(moved)).cpu()))
    stacked = F.pad(torch.stack(rows), (1, 1, 1, 1), value=255)  # (latents, steps, C, S, S)
    latents, steps, channels, height, width = stacked.shape
    return stacked.permute(0, 3, 1, 4, 2).reshape(latents * height, steps * width, channels)


def _spread(model: Autoencoder, values: Tensor, latent: int) -> Tensor:
    """`_STEPS` values that a latent takes: codes in use, in the order of their values where they have one."""
    if not model.latent.discrete:
        low, high = values.float().quantile(torch.tensor([0.01, 0.99], device=values.device))
        return torch.linspace(low.item(), high.item(), _STEPS, device=values.device)
    used = values.unique()
    if model.config.latent.kind != "vector":
        codes = torch.zeros(len(used), model.config.latent.size, dtype=torch.int64, device=used.device)
        codes[:, latent] = used
        used = used[model.latent.values(codes)[:, latent].argsort()]
    places = torch.linspace(0, len(used) - 1, _STEPS, device=used.device).round().long()
    taken: Tensor = used[places]
    return taken


def _small(images: Tensor) -> Tensor:
    """uint8 images of at most `_PIXELS` pixels a side."""
    if max(images.shape[-2:]) <= _PIXELS:
        return images
    return F.interpolate(images.float(), (_PIXELS, _PIXELS), mode="area").round().to(torch.uint8)


@contextlib.contextmanager
def _as_evaluated(model: Autoencoder) -> Iterator[None]:
    """Inside, the model is in `eval()`, in float32, and not compiled, which it would be for these batches."""
    training, device = model.training, next(model.parameters()).device.type
    stance = getattr(torch.compiler, "set_stance", None)  # PyTorch 2.6
    model.eval()
    try:
        with stance("force_eager") if stance is not None else contextlib.nullcontext():  # noqa: SIM117
            with torch.autocast(device, enabled=False):
                yield
    finally:
        model.train(training)
