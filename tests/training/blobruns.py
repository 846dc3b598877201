"""Runs on `BlobSet`; as a script, one run in a process of its own: FOLDER MODEL KILL_AT [key=value ...]."""

import os
import signal
import sys

from blobset import BlobSet

from fqvae.runs import to_flat
from fqvae.runs.presets import load_preset

TINY = [
    "data.name=blobs",
    "data.size=16",
    "model.network.channels=4",
    "model.network.hidden=16",
    "model.latent.size=4",
    "model.latent.codebook_size=8",
    "model.discriminator.width=16",
    "model.discriminator.layers=3",
    "batch_size=16",
    "steps=12",
    "log_every=1",
    "checkpoint_every=4",
]


def tiny(model="factorqvae", *overrides):
    """A run of a few seconds, most of which are Lightning's."""
    return load_preset("smoke", model, [*TINY, *overrides])


def run(folder, config, dataset=None, **options):
    from fqvae.training.run import train

    return train(config, folder, device="cpu", dataset=dataset or BlobSet(), **options)


class KilledAt(BlobSet):
    """The process is killed when it asks for the images of its batch number `call`."""

    def __init__(self, call):
        self.calls, self.call = 0, call

    def images(self, index):
        self.calls += 1
        if self.calls == self.call:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().images(index)


def main(folder, model, kill_at, *overrides):
    from fqvae.training.run import train

    dataset = KilledAt(int(kill_at)) if int(kill_at) else BlobSet()
    config = tiny(model, *overrides)
    train(config, folder, device="cpu", dataset=dataset)
    print(to_flat(config)["steps"])


if __name__ == "__main__":
    main(*sys.argv[1:])
