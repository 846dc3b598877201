"""Image sets that lack something: labels, a full grid, a factor that varies, images."""

import numpy as np
import torch
from blobset import BlobSet

NO_GRID = {"factorvae_score", "beta_vae_score"}
UNSUPERVISED = {
    *("total_correlation", "latent_nmi", "straight_through_gap", "perplexity", "codes_used"),
    *("capacity", "codes_at_ends", "explained", "mse"),
}


class Labelled:
    """The first images of BlobSet with labels, in no full grid: there is no `index`."""

    name, image_shape = "labelled", BlobSet.image_shape
    factor_names, factor_sizes = BlobSet.factor_names, BlobSet.factor_sizes

    def __init__(self, length=200):
        self.length = length

    def __len__(self):
        return self.length

    def images(self, index):
        return BlobSet().images(self.numbers(index))

    def factors(self, index):
        return BlobSet().factors(self.numbers(index))

    def numbers(self, index):
        return np.asarray(index) * 37 % 256


class Constant(Labelled):
    """All factors but one are the same in every image."""

    name = "constant"

    def factors(self, index):
        factors = super().factors(index)
        factors[:, 1:] = 2
        return factors


class OneFactor(Labelled):
    """One factor, as the digit of scikit-learn's digits."""

    name, factor_names, factor_sizes = "one", ("colour",), (4,)

    def factors(self, index):
        return super().factors(index)[:, :1]


class Unlabelled(Labelled):
    """No factors."""

    name, factor_names, factor_sizes = "unlabelled", (), ()

    def factors(self, index):
        return torch.zeros(len(index), 0, dtype=torch.int64)


class Same(Unlabelled):
    """All images are the same."""

    name = "same"

    def numbers(self, index):
        return np.zeros(len(index), int)
