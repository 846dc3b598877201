"""One autoencoder put together from parts.

AE, BioAE, VAE, FactorVAE, QLAE, dVAE, FactorDVAE, QVAE and FactorQVAE are configurations of it.
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
