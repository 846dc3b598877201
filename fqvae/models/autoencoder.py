"""`Autoencoder`: encoder, latent, decoder. All models are this one, with other parts."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fqvae.models.config import ModelConfig
from fqvae.models.latents import Drawn, Noise, build_latent
from fqvae.models.networks import build_decoder, build_encoder, initialise
from fqvae.models.own_networks import build_own

_ROUNDING = 1e-5  # that floats may lie outside of their range


class Autoencoder(nn.Module):
    """Images to codes and back.

    The initial weights are a function of configuration and seed alone.

    Args:
        config: the parts.
        image_size: S, height and width of the images.
        channels: C of the images, 1 or 3.
        seed: of the initial weights.

    Raises:
        ConfigError: an image size that the network cannot take; a network of one's own that cannot be
            imported, fails, or gives other shapes than it must.
    """

    def __init__(self, config: ModelConfig, image_size: int, *, channels: int = 3, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.image_size, self.channels = image_size, channels
        self.latent = build_latent(config.latent)
        head, width = self.latent.head_width, self.latent.decoder_width
        generator = torch.Generator().manual_seed(seed)
        self.encoder: nn.Module
        self.decoder: nn.Module
        if config.network.is_own:
            shape = (channels, image_size, image_size)
            self.encoder, self.decoder = build_own(config.network, shape, head, width, seed)
        else:
            self.encoder = build_encoder(config.network, image_size, head, channels)
            self.decoder = build_decoder(config.network, image_size, width, channels)
            initialise(self, config.network.init, generator)
        self.latent.initialise(generator)

    def forward(self, images: Tensor) -> Tensor:
        """The images as their codes describe them, nothing drawn: float (batch, C, S, S) like `decode`'s."""
        return self.decode(self.encode(images))

    def encode(self, images: Tensor) -> Tensor:
        """The codes of images, nothing drawn: (batch, M).

        int64 in [0, K) for the models with a codebook; the posterior means, or z itself, for the others.
        images: (batch, C, S, S), torch or NumPy: uint8, or floats, black at -1/2 and white at 1/2. Raises
        ValueError for another shape, and in `eval()` for another range; TypeError for other integers.
        """
        return self.latent.codes(self._head(images))

    def decode(self, codes: Tensor) -> Tensor:
        """Images of codes (batch, M): float (batch, C, S, S), black at -1/2 and white at 1/2.

        codes: int64 for models with a codebook, floating for the others.
        Raises TypeError, ValueError for codes of another dtype or shape, or out of range.
        """
        images: Tensor = self.decoder(self.latent.values(codes))
        return images

    def sample(self, count: int, *, generator: torch.Generator | None = None) -> Tensor:
        """Codes drawn from the prior, (count, M): uniform over the codes, int64, or N(0, 1), float32.

        generator: on the CPU; PyTorch's default one if None. Raises ValueError for a plain latent, which has
        no prior.
        """
        return self.latent.prior(count, generator).to(next(self.parameters()).device)

    def draw(
        self, images: Tensor, noise: Noise, *, temperature: float = 1.0, discriminator_input: bool = False
    ) -> Drawn:
        """A sample of the latents with what penalties look at, as training needs it. Images as for `encode`.

        discriminator_input: whether what a discriminator sees is wanted.
        """
        return self.latent.draw(self._head(images), noise, temperature, discriminator_input)

    def _head(self, images: Tensor | NDArray[Any]) -> Tensor:
        """The encoder's numbers, at least float32: the codes lie closer than bfloat16 can tell apart.

        images: see `encode`. Outside of training, floats out of range raise ValueError; training makes its
        own by `to_float`, and a look at them would have a GPU wait.
        """
        if isinstance(images, np.ndarray):
            weight = next(self.parameters())
            images = torch.from_numpy(np.ascontiguousarray(images)).to(weight.device)
            images = images.to(weight.dtype) if images.is_floating_point() else images
        shape = (self.channels, self.image_size, self.image_size)
        if images.dim() != 4 or images.shape[1:] != shape:
            raise ValueError(
                f"images must have shape (batch, {shape[0]}, {shape[1]}, {shape[2]}), "
                f"but had shape {tuple(images.shape)}"
            )
        if (
            images.is_floating_point()
            and images.numel()
            and not self.training
            and not torch.compiler.is_compiling()
        ):
            low, high = (each.item() for each in images.detach().aminmax())
            if not (low >= -0.5 - _ROUNDING and high <= 0.5 + _ROUNDING):  # NaN is wrong
                raise ValueError(
                    f"images must be uint8, 0 to 255, or floats from -1/2 (black) to 1/2 (white), "
                    f"but were floats from {low:.4g} to {high:.4g}"
                )
        head: Tensor = self.encoder(to_float(images))
        return head if head.dtype == torch.float64 else head.float()


def to_float(images: Tensor) -> Tensor:
    """uint8 images as x / 255 - 1/2, float32; floating-point ones are taken to be so already.

    Raises TypeError for other dtypes.
    """
    if images.is_floating_point():
        return images
    if images.dtype != torch.uint8:
        raise TypeError(
            f"images must be uint8, 0 to 255, or floats from -1/2 to 1/2, but were {images.dtype}"
        )
    return images.float() / 255 - 0.5


def to_uint8(images: Tensor) -> Tensor:
    """The inverse of `to_float`, rounded, values out of range clipped."""
    return ((images.detach() + 0.5) * 255).round().clamp(0, 255).to(torch.uint8)
