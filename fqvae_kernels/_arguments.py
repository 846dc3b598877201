"""Checks of what users pass. Every error names the argument, what it was and what it may be."""

from __future__ import annotations

import math
import numbers
import operator
from typing import SupportsIndex

import torch
from torch import Tensor

from fqvae_kernels._seeds import seed_to_int

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def check_scalars(z: Tensor, codebook: Tensor) -> None:
    """z of any shape with a codebook (K,), or (..., L) with (L, K)."""
    _check_floating("z", z)
    _check_codebook(codebook, z, "z")
    if codebook.dim() == 2 and (z.dim() == 0 or z.shape[-1] != codebook.shape[0]):
        raise ValueError(
            f"codebook of shape {tuple(codebook.shape)} needs z of shape (..., {codebook.shape[0]}), but "
            f"z had shape {tuple(z.shape)}; a codebook of shape (codes,) fits any z"
        )


def check_logits(logits: Tensor, codebook: Tensor) -> None:
    """logits (..., K) with a codebook (K,), or (..., L, K) with (L, K)."""
    _check_floating("logits", logits)
    _check_codebook(codebook, logits, "logits")
    if logits.dim() < codebook.dim() or logits.shape[-codebook.dim() :] != codebook.shape:
        wanted = ", ".join(map(str, codebook.shape))
        raise ValueError(
            f"codebook of shape {tuple(codebook.shape)} needs logits of shape (..., {wanted}), but logits "
            f"had shape {tuple(logits.shape)}"
        )


def check_flag(name: str, value: bool) -> None:
    """True or False, nothing that merely counts as one."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, but was {value!r}")


def check_count(name: str, value: SupportsIndex, lowest: int) -> int:
    """An integer from lowest to 2**63 - 1."""
    number = _integer(name, value, "an int")
    if not lowest <= number < 2**63:
        raise ValueError(f"{name} must be an int of at least {lowest} and below 2**63, but was {number}")
    return number


def check_temperature(
    temperature: float | Tensor, device: torch.device, *, name: str = "temperature", read: bool = True
) -> float | Tensor:
    """The temperature as a float, or as a tensor where it needs a gradient or cannot be read here.

    read: look at the value of a CPU tensor, which a traced tensor does not have.
    """
    if not isinstance(temperature, Tensor):
        # An abstract class is slow to ask.
        if type(temperature) is not float and (
            isinstance(temperature, bool) or not isinstance(temperature, numbers.Real)
        ):
            raise TypeError(
                f"{name} must be a float or a 0-d floating-point tensor, but was {_describe(temperature)}"
            )
        value = float(temperature)
        _check_temperature_value(name, value)
        return value
    if temperature.dim() != 0:
        raise ValueError(
            f"{name} must be a float or a 0-d tensor, but was a tensor of shape {tuple(temperature.shape)}"
        )
    if temperature.dtype not in DTYPES:
        raise TypeError(f"{name} must be floating point ({_names(DTYPES)}), but was {temperature.dtype}")
    _check_same_device(name, temperature, device)
    if not read or temperature.device.type != "cpu":
        return temperature
    value = temperature.item()
    _check_temperature_value(name, value)
    return temperature if temperature.requires_grad else value


def check_seed(seed: SupportsIndex | Tensor, device: torch.device, *, read: bool = True) -> int | Tensor:
    """The seed as an int in [0, 2**64), or as a 0-d int64 tensor where it cannot be read here.

    read: look at the value of a CPU tensor, which a traced tensor does not have.
    """
    if isinstance(seed, Tensor):
        if seed.dtype != torch.int64:
            raise TypeError(f"seed must be an int or a 0-d torch.int64 tensor, but was {seed.dtype}")
        if seed.dim() != 0:
            raise ValueError(
                f"seed must be an int or a 0-d int64 tensor, but was a tensor of shape {tuple(seed.shape)}"
            )
        _check_same_device("seed", seed, device)
        return seed_to_int(seed) if read and seed.device.type == "cpu" else seed
    number = _integer("seed", seed, "an int in [0, 2**64) or a 0-d int64 tensor")
    if not 0 <= number < 2**64:
        raise ValueError(f"seed must be in [0, 2**64), but was {number}")
    return number


def _check_floating(name: str, value: Tensor) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, but was {_describe(value)}")
    if value.dtype not in DTYPES:
        raise TypeError(f"{name} must be floating point ({_names(DTYPES)}), but was {value.dtype}")
    if value.layout != torch.strided:
        raise TypeError(f"{name} must be a dense (torch.strided) tensor, but its layout was {value.layout}")


def _check_codebook(codebook: Tensor, values: Tensor, values_name: str) -> None:
    _check_floating("codebook", codebook)
    if codebook.dim() not in (1, 2) or 0 in codebook.shape:
        raise ValueError(
            "codebook must have shape (codes,) or (latents, codes) with at least one code, but had shape "
            f"{tuple(codebook.shape)}"
        )
    if codebook.device != values.device:
        raise ValueError(
            f"codebook must be on the device of {values_name} ({values.device}), but was on {codebook.device}"
        )


def _check_same_device(name: str, value: Tensor, device: torch.device) -> None:
    if value.device != device and value.device.type != "cpu":
        raise ValueError(
            f"{name} must be on the device of the data ({device}) or on the CPU, but was on {value.device}"
        )


def _check_temperature_value(name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be finite and greater than 0, but was {value}")


def _integer(name: str, value: SupportsIndex, wanted: str) -> int:
    # A bool is an int too, but was hardly meant as a number.
    if not isinstance(value, bool):
        # operator.index would make torch.compile recompile for every new value.
        if isinstance(value, int):
            return value
        try:
            return operator.index(value)
        except TypeError:
            pass
    raise TypeError(f"{name} must be {wanted}, but was {_describe(value)}")


def _describe(value: object) -> str:
    return f"{value!r} ({type(value).__name__})"


def _names(dtypes: tuple[torch.dtype, ...]) -> str:
    return ", ".join(map(str, dtypes))
