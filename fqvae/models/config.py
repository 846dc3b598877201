"""What a model is made of: four small parts, each checked when it is made."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Literal, get_args, get_origin, get_type_hints

from fqvae.models.own_networks import BUILT_IN, full_name, registered_names


class ConfigError(ValueError):
    """A setting that does not exist, has a value it may not have, or does not go with another."""


@dataclass(frozen=True)
class NetworkConfig:
    """The encoder and, mirrored, the decoder.

    kind: "official", residual blocks of C, 2C and 4C channels at full, half and quarter resolution; or
        "light", three 4x4 convolutions of stride 2 with C, 2C and 4C channels; or a network of one's own, as
        package.module:function or by a registered name (see `fqvae.models.own_networks`).
    channels: C, of the first feature maps. hidden: width of the dense layers.
    init: of all weights, the discriminator's too: "normal", N(0, 0.02**2) with biases 0; or "fan_in", uniform
        on +-1/sqrt(inputs), PyTorch's default, with which the light network learns much sooner. A
        network of one's own keeps the weights that it is made with: PyTorch's generator is seeded for that.
    """

    kind: str = "official"
    channels: int = 128
    hidden: int = 128
    init: Literal["normal", "fan_in"] = "normal"

    def __post_init__(self) -> None:
        check_choices("network.", self)
        check_at_least("network.", self, channels=1, hidden=1)
        kind = full_name(self.kind)
        if kind is None:
            raise ConfigError(
                f"network.kind must be one of {', '.join([*BUILT_IN, *registered_names()])}, "
                f"or package.module:function, but was {self.kind!r}"
            )
        object.__setattr__(self, "kind", kind)
        if self.kind == "official" and self.channels % 4:
            raise ConfigError(
                f"network.channels must be a multiple of 4 for the official network, but was {self.channels}"
            )

    @property
    def is_own(self) -> bool:
        """Whether it is somebody's own function that makes the network."""
        return self.kind not in BUILT_IN


@dataclass(frozen=True)
class LatentConfig:
    """What stands between encoder and decoder.

    kind: "plain", the encoder's numbers as they are; "gaussian", a sample of N(mean, variance); "scalar",
        every number quantized to a codebook of scalars; "logits", a code drawn from the logits that the
        encoder gives for each latent; "vector", as "scalar" with vectors of `dimension` numbers.
    size: M, the number of latents. codebook_size: K, the number of codes.
    codebooks: one for all latents ("shared") or one for each ("per_latent"); "scalar" and "logits" have both.
    estimator: of "scalar" and "vector": "gumbel", a Gumbel-Softmax sample, or "nearest", the nearest code
        with the gradient going straight through.
    hard: exactly one code forward, the soft gradient backward (Gumbel-Softmax only).
    init: the codes at the start: "normal", N(0, 1), or "linspace", evenly from -1/2 to 1/2.
    dimension: of a code of the kind "vector"; 1 for all other kinds.
    """

    kind: Literal["plain", "gaussian", "scalar", "logits", "vector"] = "scalar"
    size: int = 12
    codebook_size: int = 64
    codebooks: Literal["shared", "per_latent"] = "shared"
    estimator: Literal["gumbel", "nearest"] = "gumbel"
    hard: bool = False
    init: Literal["normal", "linspace"] = "normal"
    dimension: int = 1

    def __post_init__(self) -> None:
        check_choices("latent.", self)
        check_at_least("latent.", self, size=1, codebook_size=1, dimension=1)
        if self.dimension > 1 and self.kind != "vector":
            raise ConfigError(
                f"latent.dimension must be 1 unless latent.kind is 'vector', but was {self.dimension}"
            )
        if self.kind == "vector" and self.codebooks == "per_latent":
            raise ConfigError("latent.codebooks must be 'shared' for the kind 'vector', but was 'per_latent'")
        if self.kind == "vector" and self.init == "linspace":
            raise ConfigError("latent.init must be 'normal' for the kind 'vector', but was 'linspace'")
        if self.estimator == "nearest" and self.kind not in ("scalar", "vector"):
            raise ConfigError(
                f"latent.estimator must be 'gumbel' for the kind {self.kind!r}, but was 'nearest'"
            )

    @property
    def terms(self) -> tuple[str, ...]:
        """The penalties that this latent can be charged with, by their names in `WeightsConfig`."""
        if self.kind == "plain":
            return ("total_correlation", "nonnegativity", "activity")
        if self.estimator == "nearest":
            return ("commitment", "codebook")
        return ("kl", "total_correlation")


@dataclass(frozen=True)
class WeightsConfig:
    """Weights of the penalties that are added to the reconstruction error; 0 leaves one out.

    kl: beta, of the mean KL divergence of the posterior from the prior, per latent, in nats.
    total_correlation: gamma, of the discriminator's estimate. Above 0 the model has a discriminator.
    nonnegativity, activity: of mean(max(-z, 0)) and mean(z**2), the BioAE's (Whittington et al. 2023).
    commitment, codebook: of mean((sg[code] - z)**2) and mean((code - sg[z])**2), the VQ-VAE's.
    """

    kl: float = 0.0
    total_correlation: float = 0.0
    nonnegativity: float = 0.0
    activity: float = 0.0
    commitment: float = 0.0
    codebook: float = 0.0

    def __post_init__(self) -> None:
        check_at_least("weights.", self, **{each.name: 0 for each in fields(self)})


@dataclass(frozen=True)
class DiscriminatorConfig:
    """layers: number of linear layers, the one to the two logits included. width: of the layers between."""

    layers: int = 6
    width: int = 1000

    def __post_init__(self) -> None:
        check_at_least("discriminator.", self, layers=1, width=1)


@dataclass(frozen=True)
class ModelConfig:
    """An autoencoder: network, latent, penalties and, if total correlation has a weight, discriminator."""

    network: NetworkConfig = field(default_factory=NetworkConfig)
    latent: LatentConfig = field(default_factory=LatentConfig)
    weights: WeightsConfig = field(default_factory=WeightsConfig)
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)

    def __post_init__(self) -> None:
        for each in fields(self.weights):
            weight = getattr(self.weights, each.name)
            if weight and each.name not in self.latent.terms:
                raise ConfigError(
                    f"weights.{each.name} must be 0 for a {self.latent.kind!r} latent with the estimator "
                    f"{self.latent.estimator!r}, but was {weight}; it can have {', '.join(self.latent.terms)}"
                )

    @property
    def has_discriminator(self) -> bool:
        """Whether training takes a second half of the batch and a discriminator."""
        return self.weights.total_correlation > 0


def check_at_least(part: str, config: object, **least: float) -> None:
    """Raise ConfigError unless every field named is finite and at least this large.

    part: what stands before the names in the message.
    """
    for name, bound in least.items():
        value = getattr(config, name)
        if not bound <= value < float("inf"):
            raise ConfigError(f"{part}{name} must be finite and at least {bound}, but was {value}")


def check_choices(part: str, config: object) -> None:
    """Raise ConfigError unless every field whose type lists its values has one of these."""
    for name, hint in get_type_hints(type(config)).items():
        value = getattr(config, name)
        if get_origin(hint) is Literal and value not in get_args(hint):
            raise ConfigError(f"{part}{name} must be one of {get_args(hint)}, but was {value!r}")
