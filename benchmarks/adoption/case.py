"""What a case of the benchmark is: a model with its data, made once with each quantizer."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass
class Task:
    """A model and its data, first dimension the samples.

    loss(batch, progress): the task's loss and the quantizer's own, each a number; progress goes from 0 to 1
    in training. evaluate(data): the task's loss in eval() and the number of codes in use.
    """

    model: nn.Module
    train: Tensor
    test: Tensor
    loss: Callable[[Tensor, float], tuple[Tensor, Tensor]]
    evaluate: Callable[[Tensor], tuple[float, float]]


@dataclass(frozen=True)
class Kind:
    """A quantizer that the model is made with.

    quantizer: what it is, for the table. codes: how many codes there are. changed: the lines of the model's
    user that differ from those of the case's first kind.
    """

    quantizer: str
    codes: int
    changed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Case:
    """How a task is made and trained.

    kinds: by name; the first is the one that the model comes with. make: of the kind's name.
    packages: what has to be installed.
    """

    title: str
    kinds: dict[str, Kind]
    make: Callable[[str], Task]
    steps: int
    batch_size: int
    learning_rate: float
    packages: tuple[str, ...] = ("sklearn",)

    def missing(self) -> list[str]:
        """The packages that are not installed."""
        return [name for name in self.packages if importlib.util.find_spec(name) is None]


def codes_in_use(indices: Tensor) -> float:
    """Different rows of indices (N, latents)."""
    return float(len(indices.unique(dim=0)))
