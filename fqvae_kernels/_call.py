"""The one description of a pass: what the public functions, autograd, the operators and the backends hand on.

A `Call` is made once, by the public function, and reaches the kernel as it is; the backward pass gets the
same one, so that it draws the same noise.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

# How an index is drawn, and how the gradient of the scores is formed.
SAMPLING_ESTIMATORS = ("gumbel", "straight_through", "reinmax")
ESTIMATORS = (*SAMPLING_ESTIMATORS, "nearest")


class Wants(NamedTuple):
    """The outputs that a forward pass is asked for; a kernel computes no others."""

    quantized: bool = True
    indices: bool = True
    kl: bool = True
    weights: bool = False

    def with_indices(self) -> Wants:
        """These, and the indices."""
        return Wants(self.quantized, True, self.kl, self.weights)


class Needs(NamedTuple):
    """The gradients that a backward pass is asked for."""

    input: bool = False
    codebook: bool = False
    temperature: bool = False


class Call(NamedTuple):
    """What a backend is told about one pass besides its input and codebook. Made with keywords only."""

    estimator: str = "gumbel"
    is_logits: bool = False  # the input is logits (..., K), else scalars
    hard: bool = False  # of "gumbel": quantized is a code; of the others it always is
    temperature: float | Tensor = 1.0
    seed: int | Tensor = 0
    row_offset: int = 0
    wants: Wants = Wants()
    needs: Needs = Needs()  # of the backward pass that will follow; nothing if none does

    def changed(self, **changes: Any) -> Call:
        """`_replace`, which torch.compile of PyTorch 2.8 cannot follow."""
        return Call(
            changes.get("estimator", self.estimator),
            changes.get("is_logits", self.is_logits),
            changes.get("hard", self.hard),
            changes.get("temperature", self.temperature),
            changes.get("seed", self.seed),
            changes.get("row_offset", self.row_offset),
            changes.get("wants", self.wants),
            changes.get("needs", self.needs),
        )


def draws(wants: Wants) -> bool:
    """Whether an output that is wanted depends on what is drawn; the KL does not."""
    return wants.quantized or wants.indices or wants.weights


def gives_codes(call: Call) -> bool:
    """Whether quantized is exactly a code, and weights are one-hot.

    A function, since torch.compile of PyTorch 2.8 follows no property of a named tuple.
    """
    return call.hard or call.estimator != "gumbel"


class Kept(NamedTuple):
    """What is kept of a forward pass for the backward pass, besides input and codebook."""

    indices: Tensor  # int64, one a row
    stats: Tensor  # (stats_rows, rows) in the compute dtype, which only the backend understands
    weights: Tensor | None = None  # soft weights in the compute dtype, where they were asked for


class Incoming(NamedTuple):
    """The gradients that reach a backward pass, None where nothing comes."""

    quantized: Tensor | None = None
    kl: Tensor | None = None
    weights: Tensor | None = None


class Tally(NamedTuple):
    """Where the native kernels count codes."""

    table: Tensor  # (latents or more, codes), int64, contiguous, on the CPU
    latents: int  # a row of indices is of latent (its number mod latents)


# quantized, indices, kl, weights: None for what the call does not want.
Outputs = tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]
# Of input (its dtype), codebook (compute dtype) and temperature (float64): None for what is not needed.
Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]
