"""An autoencoder of padded series, with the quantizer that is written by hand and with ours."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from adoption.case import Case, Kind, Task, codes_in_use
from adoption.data import padded_series
from adoption.quantizers import scalars

WIDTH, CHANNELS = 32, 3


class NearestVectors(nn.Module):
    """64 vectors of a projection to 4 numbers: the nearest, its gradient straight through, masked losses.

    Codes and projection learn by van den Oord et al.'s codebook and commitment losses (2017), 1 and 0.25.
    """

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(WIDTH, 4), nn.Linear(4, WIDTH)
        self.vectors = nn.Parameter(torch.randn(64, 4))

    def forward(self, hidden: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """hidden (B, T, WIDTH), mask (B, T). Returns quantized, indices (B, T, 1) and the loss."""
        z = self.down(hidden)
        indices = torch.cdist(z, self.vectors.expand(len(z), -1, -1)).argmin(-1)
        nearest = self.vectors[indices]
        commitment = masked_mse(z, nearest.detach(), mask)
        loss = masked_mse(nearest, z.detach(), mask) + 0.25 * commitment
        return self.up(z + (nearest - z).detach()), indices.unsqueeze(-1), loss


class ScalarsOfSteps(nn.Module):
    """Ours: three scalars of four codes a step, padding by `mask`."""

    def __init__(self) -> None:
        super().__init__()
        self.quantizer = scalars(codebook_size=4, dim=WIDTH, num_latents=3)

    def forward(self, hidden: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As `NearestVectors`; indices are (B, T, 3)."""
        quantized, indices, loss = self.quantizer(hidden, mask=mask)
        return quantized, indices, loss


QUANTIZERS: dict[str, Callable[[], nn.Module]] = {"by hand": NearestVectors, "ours": ScalarsOfSteps}


class Autoencoder(nn.Module):
    """A GRU before the quantizer and one behind it. Padding stands at the end, so no step before sees it."""

    def __init__(self, quantizer: nn.Module) -> None:
        super().__init__()
        self.encoder = nn.GRU(CHANNELS, WIDTH, batch_first=True)
        self.quantizer = quantizer
        self.decoder = nn.GRU(WIDTH, WIDTH, batch_first=True)
        self.out = nn.Linear(WIDTH, CHANNELS)

    def forward(self, series: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """series (B, T, CHANNELS), mask (B, T). Returns the reconstruction, indices, and the loss."""
        quantized, indices, loss = self.quantizer(self.encoder(series)[0], mask)
        return self.out(self.decoder(quantized)[0]), indices, loss


def masked_mse(found: Tensor, wanted: Tensor, mask: Tensor) -> Tensor:
    """The mean over the steps that count, all numbers of a step together."""
    error = (found - wanted).square().mean(-1)
    return (error * mask).sum() / mask.sum()


def padded_gru(kind: str) -> Task:
    """Series of 12 to 48 steps of 3 numbers: 6 bits a step."""
    model = Autoencoder(QUANTIZERS[kind]())
    data = padded_series(1200, 48, CHANNELS)

    def call(batch: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        series, mask = batch[..., :CHANNELS], batch[..., CHANNELS].bool()
        found, indices, own = model(series, mask)
        return masked_mse(found, series, mask), own, indices[mask]

    def loss(batch: Tensor, progress: float) -> tuple[Tensor, Tensor]:
        return call(batch)[:2]

    def evaluate(data: Tensor) -> tuple[float, float]:
        error, _, indices = call(data)
        return error.item(), codes_in_use(indices)

    return Task(model, data[:1000], data[1000:], loss, evaluate)


CASES = {
    "series": Case(
        "GRU on padded series",
        {
            "by hand": Kind("64 vectors, nearest, by hand", 64),
            "ours": Kind(
                "3 scalars of 4 codes, mask=",
                64,
                (
                    "from fqvae_kernels import ScalarQuantizer",
                    "self.quantizer = ScalarQuantizer(codebook_size=4, dim=32, num_latents=3, ...)",
                    "quantized, indices, loss = self.quantizer(hidden, mask=mask)",
                ),
            ),
        },
        padded_gru,
        steps=800,
        batch_size=64,
        learning_rate=2e-3,
        packages=(),
    ),
}
