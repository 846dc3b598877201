"""A model that knows the images, and a set large enough to measure it on all combinations of factors."""

import functools

import numpy as np
import torch
from torch import nn

from fqvae.models.autoencoder import to_float
from fqvae.models.config import LatentConfig
from fqvae.models.latents import Drawn
from fqvae_kernels import ScalarQuantizer


class FullGrid:
    """BlobSet, every image 40 times: the test split is large enough for all combinations of factors."""

    def __init__(self):
        from blobset import BlobSet

        self.blobs = BlobSet()
        self.name, self.image_shape = "grid", self.blobs.image_shape
        self.factor_names, self.factor_sizes = self.blobs.factor_names, self.blobs.factor_sizes

    def __len__(self):
        return 40 * 256

    def factors(self, index):
        return self.blobs.factors(np.asarray(index) % 256)

    def index(self, factors):
        return self.blobs.index(factors)

    def images(self, index):
        return self.blobs.images(np.asarray(index) % 256)


class Perfect(nn.Module):
    """Knows the images: latent j is factor j, its values shuffled over the codebook; a fifth is constant."""

    numbers = (6, 0, 3, 1)

    def __init__(self, mixed=False):
        super().__init__()
        self.mixed = mixed
        self.latent = nn.Module()
        self.latent.discrete = True
        self.latent.config = LatentConfig(size=5, codebook_size=8)
        values = torch.full((8,), 9.0)
        values[list(self.numbers)] = torch.tensor([-0.5, 0.0, 0.1, 2.0])
        self.latent.quantizer = ScalarQuantizer(8, init=values)
        self.latent.codebook = self.latent.quantizer.codebook

    @staticmethod
    @functools.cache
    def table():
        from blobset import BlobSet

        images = to_float(BlobSet().images(np.arange(256))).flatten(1)
        return {image.numpy().tobytes(): number for number, image in enumerate(images)}

    def encode(self, images):
        numbers = np.array([self.table()[image.numpy().tobytes()] for image in images])
        factors = np.stack(np.unravel_index(numbers, (4, 4, 4, 4)), axis=1)
        if self.mixed:
            factors[:, 0] = (factors[:, 0] + factors[:, 1]) % 4
        return torch.tensor(self.numbers)[torch.from_numpy(np.pad(factors, ((0, 0), (0, 1))))]

    def draw(self, images, noise, *, temperature):
        """Its samples are its codes: the straight-through gap is 0."""
        assert 0.3 < temperature < 1 and not self.latent.config.hard
        return Drawn(self.encode(images), {})

    def decoder(self, codes):
        return self.decode(codes)

    def decode(self, codes):
        from blobset import BlobSet

        factors = (codes[:, :4, None] == torch.tensor(self.numbers)).int().argmax(-1).numpy()
        if self.mixed:
            factors[:, 0] = (factors[:, 0] - factors[:, 1]) % 4
        return to_float(BlobSet().images(np.ravel_multi_index(factors.T, (4, 4, 4, 4))))
