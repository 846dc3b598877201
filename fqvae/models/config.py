"""What a model is made of: four small parts, each checked when it is made."""

from __future__ import annotations

from dataclasses import dataclass, field, make_dataclass
from typing import TYPE_CHECKING, Literal, get_args, get_origin, get_type_hints

from fqvae.models.own_networks import BUILT_IN, full_name, registered_names
from fqvae.models.penalties import PENALTIES, Penalty
from fqvae.models.table import CUSTOM, MODELS, find_model


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
    estimator: of the kinds with a codebook, see `fqvae_kernels.ScalarQuantizer`: "gumbel", a Gumbel-Softmax
        sample; "straight_through" and "reinmax", a code with other gradients; and, for "scalar" and "vector",
        "nearest", the nearest code with the gradient going straight through.
    hard: exactly one code forward, the soft gradient backward (Gumbel-Softmax only).
    init: the codes at the start: "normal", N(0, 1), or "linspace", evenly from -1/2 to 1/2.
    dimension: of a code of the kind "vector"; 1 for all other kinds.
    precision: s, where a code is drawn by its distance s (z - code)**2: of the kind "scalar" without the
        estimator "nearest". A larger one lets a latent carry more bits; see `fqvae_kernels.ScalarQuantizer`.
    learn_precision: learn it, for each codebook, from that value on, at the codebook's learning rate.
    sorted: keep the codes in increasing order, so that their indices have one: of "scalar" and "logits".
    """

    kind: Literal["plain", "gaussian", "scalar", "logits", "vector"] = "scalar"
    size: int = 12
    codebook_size: int = 64
    codebooks: Literal["shared", "per_latent"] = "shared"
    estimator: Literal["gumbel", "straight_through", "reinmax", "nearest"] = "gumbel"
    hard: bool = False
    init: Literal["normal", "linspace"] = "normal"
    dimension: int = 1
    precision: float = 1.0
    learn_precision: bool = False
    sorted: bool = False

    @property
    def has_temperature(self) -> bool:
        """Whether codes are drawn at a temperature."""
        return self.kind in ("scalar", "logits", "vector") and self.estimator != "nearest"

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
        if not 0 < self.precision < float("inf"):
            raise ConfigError(f"latent.precision must be finite and above 0, but was {self.precision}")
        by_distance = self.kind == "scalar" and self.estimator != "nearest"
        for key, usual in (("precision", 1.0), ("learn_precision", False)):
            if getattr(self, key) != usual and not by_distance:
                raise ConfigError(
                    f"latent.{key} must be {usual} for the kind {self.kind!r} with the estimator "
                    f"{self.estimator!r}, but was {getattr(self, key)}"
                )
        if self.sorted and self.kind not in ("scalar", "logits"):
            raise ConfigError(f"latent.sorted must be False for the kind {self.kind!r}, but was True")
        kinds = ("scalar", "vector") if self.estimator == "nearest" else ("scalar", "logits", "vector")
        if self.estimator != "gumbel" and self.kind not in kinds:
            raise ConfigError(
                f"latent.estimator cannot be {self.estimator!r} for the kind {self.kind!r}; "
                "it can be 'gumbel'"
            )

    @property
    def has_posterior(self) -> bool:
        """Whether a latent is drawn from a distribution, which has a divergence from the prior."""
        return self.kind != "plain" and self.estimator != "nearest"

    @property
    def penalties(self) -> tuple[str, ...]:
        """The penalties that this latent can be charged with, by their names in `PENALTIES`."""
        return tuple(each.name for each in PENALTIES.values() if each.goes_with(self))


if TYPE_CHECKING:

    class WeightsConfig:
        """See below: its fields are the names in `PENALTIES`."""

        def __init__(self, **weights: float) -> None: ...

        def __getattr__(self, name: str) -> float: ...

else:

    def _check_weights(weights: WeightsConfig) -> None:
        check_at_least("weights.", weights, **dict.fromkeys(PENALTIES, 0))

    # A field for every penalty, so that a new one has its key as soon as it is in the table.
    WeightsConfig = make_dataclass(
        "WeightsConfig",
        [(name, float, field(default=0.0)) for name in PENALTIES],
        namespace={"__post_init__": _check_weights, "__module__": __name__},
        frozen=True,
    )
    WeightsConfig.__doc__ = (
        "Weights of the penalties that are added to the reconstruction error; 0 leaves one out.\n\n"
        + "\n".join(f"{each.name}: {each.label}; {each.meaning}." for each in PENALTIES.values())
    )


@dataclass(frozen=True)
class DiscriminatorConfig:
    """layers: number of linear layers, the one to the two logits included. width: of the layers between."""

    layers: int = 6
    width: int = 1000

    def __post_init__(self) -> None:
        check_at_least("discriminator.", self, layers=1, width=1)


@dataclass(frozen=True)
class ModelConfig:
    """An autoencoder: network, latent, weights of the penalties, and discriminator if one needs it.

    name: of a model in `fqvae.models.table`, or "custom".
    """

    network: NetworkConfig = field(default_factory=NetworkConfig)
    latent: LatentConfig = field(default_factory=LatentConfig)
    weights: WeightsConfig = field(default_factory=WeightsConfig)
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    name: str = CUSTOM.name

    def __post_init__(self) -> None:
        if find_model(self.name) is None:
            names = ", ".join([*MODELS, CUSTOM.name])
            raise ConfigError(f"model.name must be one of {names}, but was {self.name!r}")
        for each in self.penalties:
            if not each.goes_with(self.latent):
                raise ConfigError(
                    f"weights.{each.name} must be 0 for a {self.latent.kind!r} latent with the estimator "
                    f"{self.latent.estimator!r}, but was {getattr(self.weights, each.name)}; it can have "
                    f"{', '.join(self.latent.penalties)}"
                )

    @property
    def penalties(self) -> tuple[Penalty, ...]:
        """The penalties that have a weight."""
        return tuple(each for each in PENALTIES.values() if getattr(self.weights, each.name) > 0)

    @property
    def label(self) -> str:
        """The model's name as pages print it, with what makes this one another in brackets."""
        model = find_model(self.name)
        assert model is not None
        if model is CUSTOM:
            return model.label
        usual = LatentConfig(**model.latent)  # type: ignore[arg-type]
        changed = [
            f"{key} {getattr(self.latent, key)}"
            for key in ("kind", "estimator", "codebooks")
            if getattr(self.latent, key) != getattr(usual, key)
        ]
        changed += [each.label for each in self.penalties if each.name not in model.weights]
        return f"{model.label} ({', '.join(changed)})" if changed else model.label

    @property
    def has_discriminator(self) -> bool:
        """Whether training takes a second half of the batch and a discriminator."""
        return any("discriminator" in each.needs for each in self.penalties)


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
