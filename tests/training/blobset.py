"""A small image set for the tests of training: a coloured square on a grey ground, 16 x 16 pixels."""

import functools
import itertools
import math

import numpy as np
import torch

COLOURS = torch.tensor([[250, 20, 20], [20, 250, 20], [20, 20, 250], [250, 250, 20]], dtype=torch.uint8)


class BlobSet:
    """256 images; factors: colour (4), row (4), column (4), ground (4)."""

    name = "blobs"
    factor_names = ("colour", "row", "column", "ground")
    factor_sizes = (4, 4, 4, 4)
    image_shape = (3, 16, 16)

    def reopen(self):
        return {"name": "blobs"}  # which tests put in place of `open_data`

    def __len__(self):
        return math.prod(self.factor_sizes)

    def factors(self, index):
        return torch.from_numpy(np.stack(np.unravel_index(np.asarray(index), self.factor_sizes), 1))

    def index(self, factors):
        return torch.from_numpy(np.ravel_multi_index(np.asarray(factors).T, self.factor_sizes))

    def images(self, index):
        return _all_images()[torch.as_tensor(np.asarray(index))]


@functools.cache
def _all_images():
    images = torch.empty(BlobSet.factor_sizes + BlobSet.image_shape, dtype=torch.uint8)
    for colour, row, column, ground in itertools.product(range(4), repeat=4):
        image = images[colour, row, column, ground].fill_(60 * ground)
        image[:, 3 * row + 1 : 3 * row + 6, 3 * column + 1 : 3 * column + 6] = COLOURS[colour].view(3, 1, 1)
    return images.flatten(0, 3)
