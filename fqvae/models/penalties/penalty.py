"""What a penalty is: a term of the loss besides the reconstruction error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from torch import Tensor

if TYPE_CHECKING:
    from fqvae.models.config import LatentConfig
    from fqvae.models.latents import Drawn

Need = Literal["discriminator", "set_size"]


@dataclass(frozen=True, eq=False)
class Seen:
    """What a penalty may look at.

    drawn: the batch's latents. seed: of what a penalty draws itself, another one in every step.
    discriminator: its logits (batch, 2) for a `discriminator_input`; None unless some penalty needs it.
    set_size: the number of training images; None where nobody has said it.
    """

    drawn: Drawn
    seed: int = 0
    discriminator: Callable[[Tensor], Tensor] | None = None
    set_size: int | None = None


@dataclass(frozen=True, eq=False)
class Penalty:
    """A penalty, before its weight.

    name: its key under `weights`. label: as pages print it. meaning: what it measures, for people.
    goes_with: whether a latent can be charged with it.
    compute: its value for a batch, 0-d, differentiable.
    needs: what the training step has to provide. "discriminator": one that is trained beside the autoencoder,
        on a second half of every batch. "set_size": the number of training images.
    unit: of the value, if it has one. source: where the value comes from, if another could be meant.
    """

    name: str
    label: str
    meaning: str
    goes_with: Callable[[LatentConfig], bool]
    compute: Callable[[Seen], Tensor]
    needs: frozenset[Need] = field(default_factory=frozenset)
    unit: str = ""
    source: str = ""

    @property
    def title(self) -> str:
        """The label, with source and unit if there are any."""
        unit = f" ({self.unit})" if self.unit else ""
        return f"{self.label}, {self.source}{unit}" if self.source else self.label + unit

    def __call__(self, seen: Seen) -> Tensor:
        """The penalty, 0-d. Raises ValueError if something that it needs is not there."""
        for need in sorted(self.needs):
            if getattr(seen, need) is None:
                raise ValueError(f"{need} must be given for the penalty {self.name}, but was None")
        return self.compute(seen)
