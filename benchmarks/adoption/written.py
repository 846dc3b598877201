"""Models as people write them around a quantizer, on digits: a discrete VAE, an autoencoder."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from adoption.case import Case, Kind, Task, codes_in_use
from adoption.data import digits
from adoption.quantizers import scalars
from fqvae_kernels import gumbel_softmax

F = nn.functional


class DiscreteVae(nn.Module):
    """Logits for 16 positions of 64 codes, their vectors, and a decoder."""

    def __init__(self) -> None:
        super().__init__()
        down = [nn.Conv2d(1, 32, 4, 2, 1), nn.ReLU(), nn.Conv2d(32, 64, 4, 2, 1), nn.ReLU()]
        self.encoder = nn.Sequential(*down, nn.Conv2d(64, 64, 1))
        self.vectors = nn.Parameter(torch.randn(64, 32))
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(32, 64, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(64, 1, 4, 2, 1)
        )

    def decode(self, weights: Tensor) -> Tensor:
        """Images from weights (B, 64, 4, 4)."""
        found: Tensor = self.decoder(torch.einsum("bkhw,kd->bdhw", weights, self.vectors))
        return found


def dvae(kind: str) -> Task:
    """A discrete VAE on digits of 16 x 16, as it is written with F.gumbel_softmax."""
    model = DiscreteVae()
    sample: Any = {"theirs": F.gumbel_softmax, "ours": gumbel_softmax}[kind]

    def loss(batch: Tensor, progress: float) -> tuple[Tensor, Tensor]:
        logits = model.encoder(batch)
        weights = sample(logits, tau=max(0.9 ** (20 * progress), 0.3), dim=1)
        posterior = logits.log_softmax(1)
        kl = (posterior.exp() * (posterior + math.log(64))).sum(1).mean()
        return F.mse_loss(model.decode(weights), batch), 1e-4 * kl

    def evaluate(data: Tensor) -> tuple[float, float]:
        indices = model.encoder(data).argmax(1)
        one_hot = F.one_hot(indices, 64).movedim(-1, 1).float()
        return F.mse_loss(model.decode(one_hot), data).item(), codes_in_use(indices.reshape(-1, 1))

    return Task(model, *digits(16), loss, evaluate)


def _vector_quantize() -> nn.Module:
    from vector_quantize_pytorch import VectorQuantize

    module: nn.Module = VectorQuantize(dim=32, codebook_size=256, accept_image_fmap=True)
    return module


def _fsq() -> nn.Module:
    from vector_quantize_pytorch import FSQ

    module: nn.Module = FSQ(dim=32, levels=[8, 6, 5])
    return module


def _ours() -> nn.Module:
    return scalars(codebook_size=4, dim=32, num_latents=4, channel_first=True)


SMALL_QUANTIZERS: dict[str, Callable[[], nn.Module]] = {
    "VectorQuantize": _vector_quantize,
    "FSQ": _fsq,
    "ours": _ours,
}


def small_autoencoder(kind: str) -> Task:
    """A convolutional autoencoder on digits of 16 x 16: 16 positions of 8 bits. FSQ returns no loss."""
    model = nn.ModuleDict(
        {
            "encoder": nn.Sequential(
                *(nn.Conv2d(1, 16, 4, 2, 1), nn.GELU(), nn.Conv2d(16, 32, 4, 2, 1)),
            ),
            "quantizer": SMALL_QUANTIZERS[kind](),
            "decoder": nn.Sequential(
                *(nn.ConvTranspose2d(32, 16, 4, 2, 1), nn.GELU(), nn.ConvTranspose2d(16, 1, 4, 2, 1)),
            ),
        }
    )

    def forward(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        found: Any = model["quantizer"](model["encoder"](images))
        quantized, indices = found[:2]
        own = found[2].sum() if len(found) > 2 else quantized.new_zeros(())
        return model["decoder"](quantized), indices, own

    def loss(batch: Tensor, progress: float) -> tuple[Tensor, Tensor]:
        images, _, own = forward(batch)
        return F.mse_loss(images, batch), own

    def evaluate(data: Tensor) -> tuple[float, float]:
        images, indices, _ = forward(data)
        rows = indices.movedim(1, -1).reshape(-1, 4) if kind == "ours" else indices.reshape(-1, 1)
        return F.mse_loss(images, data).item(), codes_in_use(rows)

    return Task(model, *digits(16), loss, evaluate)


CASES = {
    "dvae": Case(
        "dVAE",
        {
            "theirs": Kind("F.gumbel_softmax", 64),
            "ours": Kind("gumbel_softmax", 64, ("from fqvae_kernels import gumbel_softmax",)),
        },
        dvae,
        steps=600,
        batch_size=64,
        learning_rate=2e-3,
    ),
    "small": Case(
        "convolutional autoencoder",
        {
            "VectorQuantize": Kind("VectorQuantize, 256 vectors, EMA", 256),
            "FSQ": Kind(
                "FSQ, levels 8, 6, 5",
                240,
                (
                    "from vector_quantize_pytorch import FSQ",
                    "self.quantizer = FSQ(dim=32, levels=[8, 6, 5])",
                    "quantized, indices = self.quantizer(x)",
                ),
            ),
            "ours": Kind(
                "4 scalars of 4 codes",
                256,
                (
                    "from fqvae_kernels import ScalarQuantizer",
                    "self.quantizer = ScalarQuantizer(dim=32, num_latents=4, channel_first=True, ...)",
                ),
            ),
        },
        small_autoencoder,
        steps=600,
        batch_size=64,
        learning_rate=1e-3,
        packages=("sklearn", "vector_quantize_pytorch"),
    ),
}
