"""Trains a small autoencoder on two processes and writes what each rank saw to FOLDER/RANK.json.

    torchrun --standalone --nproc-per-node 2 tests/train_on_ranks.py accelerate FOLDER
    python tests/train_on_ranks.py lightning FOLDER

`test_adoption_ranks.py` runs it. The quantizer stands in the model as it would in one process.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor, distributed, nn
from torch.utils.data import DataLoader, TensorDataset

from fqvae_kernels import ScalarQuantizer

EPOCHS, BATCH, RATE = 8, 32, 3e-3


class Autoencoder(nn.Module):
    """Digits of 64 pixels by six scalars of eight codes."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(64, 32), nn.GELU(), nn.Linear(32, 6))
        self.quantizer = ScalarQuantizer(8, hard=True, precision=16.0, commitment_weight=0.25)
        self.decoder = nn.Sequential(nn.Linear(6, 32), nn.GELU(), nn.Linear(32, 64))
        self.taken = torch.zeros(6, 8, dtype=torch.int64)  # how often this rank alone took each code

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        quantized, indices, loss = self.quantizer(self.encoder(images))
        self.taken += nn.functional.one_hot(indices, 8).sum(0)
        return self.decoder(quantized), loss


def batches() -> DataLoader[tuple[Tensor, ...]]:
    images = torch.from_numpy(load_digits().data[:512] / 8 - 1).float()
    return DataLoader(TensorDataset(images), BATCH, shuffle=True)


def write(folder: Path, model: Autoencoder, losses: list[float]) -> None:
    """What this rank has, and what it draws for equal z and seeds. Reading usage takes both ranks."""
    found = {
        "losses": losses,
        "parameters": [parameter.tolist() for parameter in model.parameters()],
        "taken": model.taken.tolist(),
        "usage": model.quantizer.usage.tolist(),
        "world": distributed.get_world_size(),
    }
    for name, options in {"drawn": {}, "drawn_as_rank_0": {"row_offset": 0}}.items():
        torch.manual_seed(0)
        found[name] = model.quantizer(torch.zeros(50, 6), **options).indices.tolist()
    (folder / f"{distributed.get_rank()}.json").write_text(json.dumps(found))


def train_by_accelerate(folder: Path) -> None:
    from accelerate import Accelerator
    from accelerate.utils import set_seed

    set_seed(0)
    accelerator = Accelerator(cpu=True)
    model = Autoencoder()
    optimizer = torch.optim.Adam(model.parameters(), RATE)
    wrapped, optimizer, loader = accelerator.prepare(model, optimizer, batches())
    losses = []
    for _ in range(EPOCHS):
        for (images,) in loader:
            optimizer.zero_grad()
            found, own = wrapped(images)
            loss = nn.functional.mse_loss(found, images)
            accelerator.backward(loss + own)
            optimizer.step()
            losses.append(loss.item())
    write(folder, model, losses)
    accelerator.end_training()


def train_by_lightning(folder: Path) -> None:
    import lightning

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = Autoencoder()
            self.losses: list[float] = []

        def training_step(self, batch: tuple[Tensor], number: int) -> Tensor:
            found, own = self.model(batch[0])
            loss = nn.functional.mse_loss(found, batch[0])
            self.losses.append(loss.item())
            return loss + own

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), RATE)

        def on_train_end(self) -> None:
            write(folder, self.model, self.losses)

    lightning.seed_everything(0)
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=2,
        strategy="ddp",
        max_epochs=EPOCHS,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Module(), batches())


if __name__ == "__main__":
    torch.set_num_threads(1)
    train_by = {"accelerate": train_by_accelerate, "lightning": train_by_lightning}[sys.argv[1]]
    train_by(Path(sys.argv[2]))
