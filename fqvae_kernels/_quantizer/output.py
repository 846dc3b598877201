"""`QuantizerOutput`: what a quantizer returns, in a form that PyTorch's containers see through."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from torch import Tensor
from torch.utils import _pytree

_ITEMS = ("quantized", "indices", "loss")
_FIELDS = (*_ITEMS, "kl", "weights", "losses")


class QuantizerOutput(tuple[Tensor, Tensor, Tensor]):
    """What the modules return: a tuple of three that unpacks as `quantized, indices, loss`.

    The fields beside the three are attributes. The whole is a pytree with a leaf for every tensor, so that
    DistributedDataParallel, torch.export, torch.func and `torch.utils._pytree` keep all fields. What rebuilds
    a tuple from its items keeps the three alone: reentrant checkpointing returns them as a plain tuple, and
    `torch.nn.parallel.gather` as a QuantizerOutput whose `kl` and `weights` are None.

    Args:
        quantized: shape and dtype of z; of a `GumbelVectorQuantizer` (..., code_dim). Or an iterable of the
            three items and nothing else, as for `tuple`.
        indices: shape of z, int64; with projections num_latents in the place of dim; of a
            `GumbelVectorQuantizer` (..., num_codebooks). -1 where z is masked.
        loss: 0-d, compute dtype (float64 for float64 z, else float32).
        kl: shape of indices, compute dtype, nats; None where none was computed.
        weights: (*indices.shape, K) in the dtype of z, or None if they were not asked for.
        losses: the terms of loss that have a weight, by name ("kl", "commitment", "codebook", "entropy"; of a
            `GumbelVectorQuantizer` "kl", "diversity"), each 0-d and multiplied by its weight: they add up to
            loss.
    """

    kl: Tensor | None
    weights: Tensor | None
    losses: dict[str, Tensor]

    def __new__(
        cls,
        quantized: Tensor | Iterable[Tensor],
        indices: Tensor | None = None,
        loss: Tensor | None = None,
        kl: Tensor | None = None,
        weights: Tensor | None = None,
        losses: dict[str, Tensor] | None = None,
    ) -> QuantizerOutput:
        # Whoever maps a function over a tuple makes the new one from an iterable.
        items = quantized if indices is None and loss is None else (quantized, indices, loss)
        self = tuple.__new__(cls, cast("tuple[Tensor, Tensor, Tensor]", items))
        if len(self) != len(_ITEMS):
            raise ValueError(
                f"QuantizerOutput needs the three items {', '.join(_ITEMS)}, but was given {len(self)}"
            )
        self.kl = kl
        self.weights = weights
        self.losses = {} if losses is None else losses
        return self

    @property
    def quantized(self) -> Tensor:
        """The codes' values, or their weighted mean: shape and dtype of z."""
        return self[0]

    @property
    def indices(self) -> Tensor:
        """The codes that were taken: int64, the shape of z, or with projections num_latents for dim."""
        return self[1]

    @property
    def loss(self) -> Tensor:
        """The sum of the terms that have a weight: 0-d, compute dtype."""
        return self[2]

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), tuple(getattr(self, name) for name in _FIELDS)

    # Tensors have no truth value, so two outputs are equal only if they are the same object.
    def __eq__(self, other: object) -> bool:
        return self is other

    def __ne__(self, other: object) -> bool:
        return self is not other

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in _FIELDS)
        return f"{type(self).__name__}({fields})"


def _names(output: QuantizerOutput) -> list[str]:
    # torch.func takes no leaf but tensors, and None would be one.
    return [name for name in _FIELDS if getattr(output, name) is not None]


def _flatten(output: QuantizerOutput) -> tuple[list[Any], list[str]]:
    names = _names(output)
    return [getattr(output, name) for name in names], names


def _flatten_with_keys(output: QuantizerOutput) -> tuple[list[tuple[Any, Any]], list[str]]:
    names = _names(output)
    return [(_pytree.GetAttrKey(name), getattr(output, name)) for name in names], names


def _unflatten(children: Iterable[Any], names: list[str]) -> QuantizerOutput:
    fields: dict[str, Any] = dict(zip(names, children, strict=True))
    # tuple.__new__ by hand, since a container may put placeholders, None among them, where tensors were.
    output = tuple.__new__(QuantizerOutput, tuple(fields.get(name) for name in _ITEMS))
    output.kl = fields.get("kl")
    output.weights = fields.get("weights")
    output.losses = fields.get("losses", {})
    return output


_pytree.register_pytree_node(
    QuantizerOutput,
    _flatten,
    _unflatten,
    serialized_type_name="fqvae_kernels.QuantizerOutput",
    flatten_with_keys_fn=_flatten_with_keys,
)
