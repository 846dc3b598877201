"""One autoencoder put together from parts.

`table` names the models, each a configuration of it; `penalties` are the terms of the loss beside the
reconstruction error.
"""

from fqvae.models.autoencoder import Autoencoder, to_float, to_uint8
from fqvae.models.config import (
    ConfigError,
    DiscriminatorConfig,
    LatentConfig,
    ModelConfig,
    NetworkConfig,
    WeightsConfig,
)
from fqvae.models.latents import Drawn, Noise
from fqvae.models.own_networks import network

__all__ = [
    "Autoencoder",
    "ConfigError",
    "DiscriminatorConfig",
    "Drawn",
    "LatentConfig",
    "ModelConfig",
    "NetworkConfig",
    "Noise",
    "WeightsConfig",
    "network",
    "to_float",
    "to_uint8",
]
