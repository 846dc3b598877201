"""A decoder for `decoder.js`, which runs it in the page: its layers, and its weights as text."""

from __future__ import annotations

import base64
import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fqvae.models.autoencoder import to_uint8
from fqvae.models.networks import Network

# Multiplications for an image, some 50 ms in Chromium: 20 million took 19 ms there, on a busy core.
MOST_PRODUCTS = 50_000_000
_CONVOLUTION: dict[str, Any] = {
    "kernel_size": (4, 4),
    "stride": (2, 2),
    "padding": (1, 1),
    "output_padding": (0, 0),
    "dilation": (1, 1),
    "groups": 1,
}


class UnsuitedError(ValueError):
    """A decoder that the page cannot run; the message says why."""


def export_decoder(decoder: nn.Module, inputs: Tensor, images: Tensor, budget: int) -> dict[str, Any]:
    """The decoder as `decoder.js` takes it.

    Half precision is tried first, single precision if that changes an image by more than one grey level.

    Args:
        decoder: linear layers, then transposed 4x4 convolutions of stride 2, with ReLUs.
        inputs: float (samples, inputs), what the decoder is tried on.
        images: uint8 (samples, C, S, S), what the model makes of them.
        budget: characters that the weights may take.

    Returns:
        layers: of each its kind, "linear" or "convolution", the inputs and outputs (channels of a
        convolution), the size of a convolution's inputs, and whether a ReLU follows. weights: of each layer
        weight and bias, little-endian numbers in base64. bits: 16 or 32, of such a number.

    Raises:
        UnsuitedError: layers of another kind, too many weights or multiplications, numbers that differ.
    """
    layers, arrays = _layers(decoder)
    products = sum(
        each["inputs"] * each["outputs"] * (1 if each["kind"] == "linear" else 16 * each["size"] ** 2)
        for each in layers
    )
    if products > MOST_PRODUCTS:
        raise UnsuitedError(
            f"the decoder takes {products / 1e6:,.0f} million multiplications for an image, "
            "too many for a page"
        )
    for bits in (16, 32):
        with np.errstate(over="ignore"):
            rounded = [array.astype(f"<f{bits // 8}") for array in arrays]
        content = base64.b64encode(b"".join(each.tobytes() for each in rounded)).decode()
        if len(content) > budget:
            raise UnsuitedError(
                f"the decoder's weights take {len(content) / 1e6:,.1f} MB, more than fits in this page"
            )
        if _largest_change(layers, rounded, inputs.cpu(), images.cpu()) <= 1:
            return {"layers": layers, "weights": content, "bits": bits}
    raise UnsuitedError("the decoder's images are not those of its layers one after the other")


def _layers(decoder: nn.Module) -> tuple[list[dict[str, Any]], list[NDArray[np.float32]]]:
    """What `export_decoder` returns of the layers, and for each its weight and its bias."""
    if type(decoder) not in (Network, nn.Sequential):
        raise UnsuitedError(f"the page cannot run a decoder of the kind {type(decoder).__name__}")
    layers: list[dict[str, Any]] = []
    arrays: list[NDArray[np.float32]] = []
    shape: tuple[int, ...] = ()  # of what the last layer gives, if it is not a row of numbers
    for part in decoder:  # type: ignore[attr-defined]
        if type(part) is nn.ReLU and layers:
            layers[-1]["relu"] = True
        elif type(part) is nn.Unflatten and part.dim == 1 and len(part.unflattened_size) == 3:
            shape = tuple(part.unflattened_size)
        elif type(part) is nn.Linear and not shape:
            layers.append(_layer("linear", part.in_features, part.out_features))
            arrays += _arrays(part)
        elif type(part) is nn.ConvTranspose2d and _is_known(part) and shape and shape[1] == shape[2]:
            layers.append(_layer("convolution", part.in_channels, part.out_channels) | {"size": shape[1]})
            shape = (part.out_channels, 2 * shape[1], 2 * shape[2])
            arrays += _arrays(part)
        else:
            raise UnsuitedError(f"the page cannot run a decoder with the layer {type(part).__name__}")
    if not shape:
        raise UnsuitedError("the page cannot run a decoder that does not end with a convolution")
    return layers, arrays


def _layer(kind: str, inputs: int, outputs: int) -> dict[str, Any]:
    return {"kind": kind, "inputs": inputs, "outputs": outputs, "relu": False}


def _is_known(part: nn.ConvTranspose2d) -> bool:
    return all(getattr(part, name) == value for name, value in _CONVOLUTION.items())


def _arrays(part: nn.Linear | nn.ConvTranspose2d) -> list[NDArray[np.float32]]:
    weight = part.weight.detach().float().cpu()
    outputs = weight.shape[1] if isinstance(part, nn.ConvTranspose2d) else weight.shape[0]
    bias = torch.zeros(outputs) if part.bias is None else part.bias.detach().float().cpu()
    return [weight.numpy(), bias.numpy()]


@torch.no_grad()
def _largest_change(
    layers: list[dict[str, Any]], arrays: list[NDArray[Any]], inputs: Tensor, images: Tensor
) -> float:
    """Grey levels between the images and those of the exported layers; infinite if they are not finite."""
    x = inputs.float()
    for layer, weight, bias in zip(layers, arrays[::2], arrays[1::2], strict=True):
        w, b = (torch.from_numpy(each.astype(np.float32)) for each in (weight, bias))
        if layer["kind"] == "linear":
            x = nn.functional.linear(x, w, b)
        else:
            x = x.reshape(len(x), layer["inputs"], layer["size"], layer["size"])
            x = nn.functional.conv_transpose2d(x, w, b, stride=2, padding=1)
        x = x.relu() if layer["relu"] else x
    if not x.isfinite().all() or x.shape != images.shape:
        return math.inf
    return float((to_uint8(x).int() - images.int()).abs().max())
