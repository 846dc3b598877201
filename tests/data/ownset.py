"""Sets that are opened by name, from outside of the package: data.name=ownset:stripes and so on."""

import numpy as np
import torch

from fqvae.data import opener


class Stripes:
    """Grey images, 8 x 8, of a step at another place in each; no labels."""

    name = "stripes"
    factor_names = factor_sizes = ()
    image_shape = (1, 8, 8)

    def __init__(self, count=40, seed=0, root=None):
        self.count, self.seed, self.root = count, seed, root
        generator = np.random.default_rng(seed)
        self.pixels = (np.arange(8) > generator.integers(0, 8, (count, 1, 8, 1))) * np.uint8(200)
        self.pixels = np.broadcast_to(self.pixels, (count, 1, 8, 8)).copy()

    def __len__(self):
        return self.count

    def images(self, index):
        return torch.from_numpy(self.pixels[np.asarray(index)])

    def factors(self, index):
        return torch.zeros(len(index), 0, dtype=torch.int64)


class ReopenedStripes(Stripes):
    def reopen(self):
        return {"name": "ownset:stripes", "arguments": {"count": self.count, "seed": self.seed}}


@opener
def stripes(root=None, *, count=40, seed=0):
    return ReopenedStripes(count, seed, root)


@opener
def plain_stripes():
    return Stripes()


@opener
def nothing():
    return 5


def unmarked():
    raise AssertionError("it must not be called")
