"""Which dimension of a tensor holds the latents: the last one, or dimension 1 as in images (B, C, H, W)."""

from __future__ import annotations

from torch import Tensor

from fqvae_kernels._quantizer.output import QuantizerOutput


def check_channel_first(channel_first: bool | None) -> bool | None:
    """True, False, or None where the user has not said."""
    if channel_first is not None and not isinstance(channel_first, bool):
        raise TypeError(f"channel_first must be True, False or None, but was {channel_first!r}")
    return channel_first


def check_layout(
    name: str, values: Tensor, channel_first: bool | None, size: int | None, what: str = "latents"
) -> None:
    """That values have the latents, or what else there is of this size, where they are expected.

    Where channel_first is None that is the last dimension, and an error says so where dimension 1 would fit.
    size: None is any number.
    """
    shape = tuple(values.shape)
    count = what if size is None else size
    if channel_first:
        # Not `in`: torch.compile takes that of a size that it does not know for False.
        if len(shape) < 2 or (size is not None and shape[1] != size):
            raise ValueError(
                f"{name} must have shape (batch, {count}, ...), since channel_first is True, but had shape "
                f"{shape}"
            )
    elif size is not None and (len(shape) == 0 or shape[-1] != size):
        hint = ""
        if len(shape) >= 3 and shape[1] == size:
            hint = f"; channel_first=True takes the {what} from dimension 1"
        raise ValueError(f"{name} must have shape (..., {count}), but had shape {shape}{hint}")


def check_unambiguous(z: Tensor, channel_first: bool | None, size: int, what: str) -> None:
    """That the latents of z with the form of an image cannot be in dimension 1 as well as in the last."""
    if channel_first is None and z.dim() >= 4 and z.shape[1] == z.shape[-1] == size:
        raise ValueError(
            f"channel_first must be given for z of shape {tuple(z.shape)}, whose {size} {what} may be in "
            "dimension 1 (channel_first=True) or in the last one (channel_first=False)"
        )


def channels_last(values: Tensor) -> Tensor:
    """(B, C, ...) as (B, ..., C)."""
    return values.movedim(1, -1)


def channels_first(values: Tensor, like: Tensor) -> Tensor:
    """(B, ..., C) as (B, C, ...), dense where `like` is."""
    moved = values.movedim(-1, 1)
    return moved.contiguous() if like.is_contiguous() else moved


def output_channels_first(out: QuantizerOutput, like: Tensor) -> QuantizerOutput:
    """The fields of an output as (B, C, ...), the weights as (B, C, ..., K)."""
    return QuantizerOutput(
        channels_first(out.quantized, like),
        channels_first(out.indices, like),
        out.loss,
        None if out.kl is None else channels_first(out.kl, like),
        None if out.weights is None else out.weights.movedim(-2, 1),
        out.losses,
    )
