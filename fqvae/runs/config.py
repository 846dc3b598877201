"""What a run is: typed, frozen, and made from flat keys such as `model.weights.kl`."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from fqvae.data import RayShapes, is_own
from fqvae.models.config import ConfigError, ModelConfig, check_at_least, check_choices
from fqvae.runs.keys import build, did_you_mean, to_flat
from fqvae.runs.words import full_key

# Keys that make no other configuration: runs that differ in them alone are seeds of one.
NO_SETTINGS = ("seed", "data.root", "data.cache")
LOWEST_TEMPERATURE = 3e-39  # whose reciprocal is still finite in float32

Protocol = Literal["ours", "authors"]


@dataclass(frozen=True)
class DataConfig:
    """name: of a set that `fqvae.data.open_dataset` knows, or package.module:function.

    size: height and width of its images; 0: as the images of `arrays`, `folder` or a function are, which
        `train` looks up; 64 for all other sets.
    channels: 1 for grey images, 3 for those with colours; 0: likewise.
    root: the file or folder of a set that is not rendered here.
    cache: the folder for converted images; None: beside the original.
    resize: resize the images of `arrays` or `folder` to `size`.
    arguments: for a function, by name, as a JSON object.
    correlated: factors of RayShapes that are tied in the training images, "tied:leading" with a comma between
        pairs. strength: of the ties, 0 to 1; see `fqvae.data.correlation`.
    """

    name: str = "rayshapes"
    size: int = 0
    channels: int = 0
    root: str | None = None
    cache: str | None = None
    resize: bool = False
    arguments: str | None = None
    correlated: str | None = None
    strength: float = 0.0

    def __post_init__(self) -> None:
        if not is_own(self.name):
            object.__setattr__(self, "size", self.size or 64)
            object.__setattr__(self, "channels", self.channels or 3)
        if self.size < 0:
            raise ConfigError(f"data.size must be at least 1, but was {self.size}")
        if self.channels not in (0, 1, 3):
            raise ConfigError(f"data.channels must be 1 or 3, but was {self.channels}")
        if self.resize and (not is_own(self.name) or ":" in self.name):
            raise ConfigError(
                f"data.resize is for arrays and folder only, but data.name was {self.name!r}; leave it out"
            )
        if self.resize and not self.size:
            raise ConfigError("data.resize needs data.size, the size to resize to")
        self.function_arguments()
        pairs = self.correlated_pairs()
        if (pairs or self.strength) and self.name != RayShapes.name:
            key = "correlated" if pairs else "strength"
            raise ConfigError(
                f"data.{key} is for {RayShapes.name} only, but data.name was {self.name!r}; leave it out"
            )
        try:
            RayShapes(correlated=pairs, strength=self.strength)
        except ValueError as error:  # it begins with the name of the argument
            raise ConfigError(f"data.{error}") from error

    def function_arguments(self) -> dict[str, Any]:
        """The arguments. Raises ConfigError if the text is no JSON object, or if there is no function."""
        if self.arguments is None:
            return {}
        try:
            arguments = json.loads(self.arguments)
        except ValueError:
            arguments = None
        if not isinstance(arguments, dict):
            raise ConfigError(
                f'data.arguments must be a JSON object, as in {{"count": 100}}, but was {self.arguments!r}'
            )
        if arguments and ":" not in self.name:
            raise ConfigError(
                f"data.arguments are for package.module:function only, but data.name was {self.name!r}"
            )
        return arguments

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, size, size)."""
        return self.channels, self.size, self.size

    def correlated_pairs(self) -> dict[str, str]:
        """{tied factor: leading factor}. Raises ConfigError if the text does not say that."""
        pairs: dict[str, str] = {}
        for pair in self.correlated.split(",") if self.correlated is not None else ():
            tied, _, leading = (word.strip() for word in pair.partition(":"))
            if not tied or not leading or ":" in leading:
                raise ConfigError(
                    f"data.correlated must be pairs tied:leading with a comma between them, "
                    f"but was {self.correlated!r}"
                )
            if tied in pairs:
                raise ConfigError(f"data.correlated ties {tied!r} twice: {self.correlated!r}")
            pairs[tied] = leading
        return pairs


@dataclass(frozen=True)
class OptimizerConfig:
    """Adam for the autoencoder and for the discriminator, along a cosine down to `final_learning_rate`.

    learning_rate: of encoder, decoder and codebook, at the first step.
    discriminator_learning_rate: of the discriminator, at the first step.
    final_learning_rate: of all, at the last step.
    codebook_learning_rate: of the codes, at the first step; None: as learning_rate.
    weight_decay: decoupled (AdamW), of encoder and decoder, not of codebook and discriminator.
    """

    learning_rate: float = 1e-3
    codebook_learning_rate: float | None = None
    discriminator_learning_rate: float = 1e-3
    final_learning_rate: float = 1.25e-6
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        given = [each.name for each in dataclasses.fields(self) if getattr(self, each.name) is not None]
        check_at_least("optimizer.", self, **dict.fromkeys(given, 0))


@dataclass(frozen=True)
class RunConfig:
    """A training run. A step is one batch, over all processes: schedules and intervals count those.

    data, model, optimizer: the images, the parts and weights of the model, learning rates and decay; `fqvae
        train PRESET --keys` lists all their fields.
    steps: how many the whole run takes. seed: of initial weights, batches and noise.
    batch_size: images in a step; with a discriminator, half of them are for it.
    temperature_steps: the temperature is exp(-step / this); None: the number of steps of the run.
    total_correlation_from: the first step in which the total correlation has its weight; before it the weight
        is 0, and the discriminator learns all the same.
    log_every: steps from one row of metrics.csv to the next.
    checkpoint_every: steps from one checkpoint to the next.
    protocol: "ours", or "authors" for what the authors' program does (arXiv 2409.14851). With a discriminator
        the second half of a batch is encoded after the autoencoder's update; without one the cosine of the
        learning rate ends halfway and comes back. `load_preset` sets what else differs.
    """

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    steps: int = 50_000
    batch_size: int = 256
    temperature_steps: int | None = None
    total_correlation_from: int = 0
    seed: int = 0
    log_every: int = 100
    checkpoint_every: int = 1_000
    protocol: Protocol = "ours"

    def __post_init__(self) -> None:
        check_choices("", self)
        check_at_least("", self, steps=1, batch_size=1, log_every=1, checkpoint_every=1, seed=0)
        check_at_least("", self, total_correlation_from=0)
        if self.total_correlation_from >= self.steps:
            raise ConfigError(
                f"total_correlation_from must be below steps ({self.steps}), "
                f"but was {self.total_correlation_from}"
            )
        if self.total_correlation_from and not self.model.has_discriminator:
            raise ConfigError(
                "total_correlation_from must be 0 without weights.total_correlation, "
                f"but was {self.total_correlation_from}"
            )
        if self.temperature_steps is not None:
            check_at_least("", self, temperature_steps=1)
            lowest = math.exp(-(self.steps - 1) / self.temperature_steps)
            if lowest < LOWEST_TEMPERATURE and self.model.latent.has_temperature:
                least = math.ceil((self.steps - 1) / -math.log(LOWEST_TEMPERATURE))
                raise ConfigError(
                    f"temperature_steps must be at least {least} for {self.steps} steps, at whose end the "
                    f"temperature else is below {LOWEST_TEMPERATURE:.3g}, but was {self.temperature_steps}"
                )
        if self.model.has_discriminator and self.batch_size % 2:
            raise ConfigError(
                f"batch_size must be even, because half of it is for the discriminator, "
                f"but was {self.batch_size}"
            )

    @property
    def cosine_steps(self) -> int:
        """The step at which the learning rates come to their last value."""
        if self.protocol == "authors" and not self.model.has_discriminator:
            return max(self.steps // 2, 1)
        return self.steps


def from_flat(values: Mapping[str, object]) -> RunConfig:
    """The run with these values, by dotted keys or short names; what is not named has its default.

    Texts are read as the field's type asks ("1e-4", "none"), so values may come from YAML or a command line.
    Raises ConfigError: an unknown key or a bad value, with the nearest right one.
    """
    config: RunConfig = build(RunConfig, full_keys(values))
    return config


def differences(here: RunConfig, there: RunConfig) -> list[str]:
    """What two runs differ in, each with both values.

    Where the images lie is no difference, nor is a size that one of them leaves to the images.
    """
    ours, theirs = to_flat(here), to_flat(there)
    alike = {"data.root", "data.cache"}
    alike |= {key for key in ("data.size", "data.channels") if 0 in (ours[key], theirs[key])}
    return [
        f"{key} is {theirs[key]!r} there and {ours[key]!r} here"
        for key in ours
        if ours[key] != theirs[key] and key not in alike
    ]


def full_keys(values: Mapping[str, object]) -> dict[str, object]:
    """The values by their dotted keys.

    Raises ConfigError for a key that no run has, and for one that is there by its short name as well.
    """
    check_keys(values)
    full: dict[str, object] = {}
    for key, value in values.items():
        if full_key(key) in full:
            raise ConfigError(f"{full_key(key)} is there twice, also by its short name; leave one out")
        full[full_key(key)] = value
    return full


def check_keys(keys: Iterable[str]) -> None:
    """Raise ConfigError for a key that no run has, neither in full nor as a short name."""
    known = list(to_flat(RunConfig()))
    for key in keys:
        if full_key(key) not in known:
            raise ConfigError(f"unknown key {key!r}{did_you_mean(key, known)}")
