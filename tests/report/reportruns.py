"""Untrained models whose codes vary, as runs on `BlobSet`, without the seconds that training takes."""

import pathlib
import sys

import torch

sys.path.append(str(pathlib.Path(__file__).parents[1] / "training"))

from blobruns import tiny
from blobset import BlobSet

from fqvae.models.autoencoder import Autoencoder
from fqvae.runs import open_run, to_flat
from fqvae.runs.checkpoint import FORMAT, write_plain
from fqvae.runs.names import CHECKPOINT

METRICS = (
    "step,loss,reconstruction,kl,temperature,total_correlation,discriminator,discriminator_accuracy\n"
    "1,0.5,0.4,nan,1.0,0.1,0.6,0.75\n10,0.25,0.002,0.75,0.5,0.2,0.3,0.875\n"
)


class GreySet:
    """The images of `BlobSet` in grey, without labels, as a folder of somebody's own pictures is."""

    name = "greys"
    factor_names = ()
    factor_sizes = ()
    image_shape = (1, 16, 16)

    def __len__(self):
        return len(BlobSet())

    def factors(self, index):
        return torch.zeros((len(index), 0), dtype=torch.int64)

    def images(self, index):
        return BlobSet().images(index).float().mean(1, keepdim=True).to(torch.uint8)


def make_run(folder, model="factorqvae", *overrides, dataset=None, change=None):
    """A run of 12 steps that were not taken. change: a function that is given the autoencoder."""
    config = tiny(model, *overrides)
    autoencoder = Autoencoder(config.model, 16, channels=config.data.channels, seed=6)
    with torch.no_grad():
        # So that the codes differ from image to image, and the images from code to code.
        for part in (autoencoder.encoder, autoencoder.decoder):
            for weight in part.parameters():
                weight.mul_(3)
        if change is not None:
            change(autoencoder)
    folder.mkdir(parents=True, exist_ok=True)
    state = {f"autoencoder.{name}": value for name, value in autoencoder.state_dict().items()}
    header = {"format": FORMAT, "config": to_flat(config), "step": 12}
    write_plain({"fqvae": header, "state_dict": state}, folder / CHECKPOINT)
    (folder / "metrics.csv").write_text(METRICS)
    return open_run(folder, dataset=dataset or BlobSet())
