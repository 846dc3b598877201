"""Checks of what users pass. Every error names the argument, what it was and what it may be."""

from __future__ import annotations

import math
import numbers
import operator
from typing import SupportsIndex

import torch
from torch import Tensor
from torch.autograd import forward_ad

from fqvae_kernels._call import ESTIMATORS, SAMPLING_ESTIMATORS, Wants
from fqvae_kernels._seeds import seed_to_int

MOST_CODES = 2**24
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def check_scalars(z: Tensor, codebook: Tensor) -> None:
    """z of any shape with a codebook (K,), or (..., L) with (L, K)."""
    check_floating("z", z)
    _check_codebook(codebook, z, "z")
    if codebook.dim() == 2 and (z.dim() == 0 or z.shape[-1] != codebook.shape[0]):
        raise ValueError(
            f"codebook of shape {tuple(codebook.shape)} needs z of shape (..., {codebook.shape[0]}), but "
            f"z had shape {tuple(z.shape)}; a codebook of shape (codes,) fits any z"
        )


def check_logits(logits: Tensor, codebook: Tensor) -> None:
    """logits (..., K) with a codebook (K,), or (..., L, K) with (L, K)."""
    check_floating("logits", logits)
    _check_codebook(codebook, logits, "logits")
    if logits.dim() < codebook.dim() or logits.shape[-codebook.dim() :] != codebook.shape:
        wanted = ", ".join(map(str, codebook.shape))
        hint = ""
        if logits.dim() and codebook.dim() == 2 and logits.shape[-1] == codebook.shape[0]:
            codes, values = codebook.shape
            hint = f"; {codes} codes that are vectors of {values} values are passed as embedding="
        raise ValueError(
            f"codebook of shape {tuple(codebook.shape)} needs logits of shape (..., {wanted}), but logits "
            f"had shape {tuple(logits.shape)}{hint}"
        )


def check_one_kind_of_codes(codebook: Tensor | None, embedding: Tensor | None) -> None:
    """Codes that are scalars, or codes that are vectors."""
    if (codebook is None) == (embedding is None):
        given = "neither" if codebook is None else "both"
        raise TypeError(
            "gumbel_quantize_logits needs codebook, (codes,) or (latents, codes), for codes that are scalars "
            "or embedding, (codes, values) or (latents, codes, values), for codes that are vectors, but was "
            f"given {given}"
        )


def check_vectors(logits: Tensor, embedding: Tensor) -> None:
    """logits (..., K) with an embedding (K, D), or (..., L, K) with (L, K, D)."""
    check_floating("logits", logits)
    check_floating("embedding", embedding)
    shape = tuple(embedding.shape)
    if embedding.dim() not in (2, 3) or 0 in shape:
        hint = "; codes that are scalars are passed as codebook" if embedding.dim() == 1 else ""
        raise ValueError(
            "embedding must have shape (codes, values) or (latents, codes, values), none of them 0, but had "
            f"shape {shape}{hint}"
        )
    if embedding.shape[-2] > MOST_CODES:
        raise ValueError(f"embedding must hold at most {MOST_CODES} codes, but had shape {shape}")
    if embedding.device != logits.device:
        raise ValueError(
            f"embedding must be on the device of logits ({logits.device}), but was on {embedding.device}"
        )
    if logits.dim() < embedding.dim() - 1 or logits.shape[1 - embedding.dim() :] != embedding.shape[:-1]:
        wanted = ", ".join(map(str, shape[:-1]))
        hint = ""
        if logits.dim() and embedding.dim() == 2 and logits.shape[-1] == embedding.shape[1]:
            hint = f"; {shape[0]} codebooks of {shape[1]} scalars are passed as codebook"
        raise ValueError(
            f"embedding of shape {shape} needs logits of shape (..., {wanted}), but logits had shape "
            f"{tuple(logits.shape)}{hint}"
        )


def check_softmax_logits(logits: Tensor, dim: int) -> None:
    """logits of any shape, and a dimension of theirs."""
    check_floating("logits", logits)
    if isinstance(dim, bool) or not isinstance(dim, int):
        raise TypeError(
            f"dim must be an int, but was {_describe(dim)}; there is no eps, which PyTorch's gumbel_softmax "
            "takes in its place and ignores"
        )
    most = max(logits.dim(), 1)
    if not -most <= dim < most:
        raise IndexError(f"dim must be in [{-most}, {most - 1}], but was {dim}")
    if logits.dim() and logits.shape[dim] > MOST_CODES:
        raise ValueError(
            f"logits must have at most 2**24 places along dim {dim}, but had shape {tuple(logits.shape)}"
        )


def check_flag(name: str, value: bool) -> None:
    """True or False, nothing that merely counts as one."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, but was {value!r}")


_WANTS = {(kl, weights): Wants(kl=kl, weights=weights) for kl in (False, True) for weights in (False, True)}


def check_wants(return_weights: bool, return_kl: bool) -> Wants:
    """The outputs of a sampling function."""
    check_flag("return_weights", return_weights)
    check_flag("return_kl", return_kl)
    # No list: torch.compile of PyTorch 2.9 to 2.11 takes no bool for an index.
    return _WANTS[return_kl, return_weights]


def check_estimator(estimator: str, estimators: tuple[str, ...] = SAMPLING_ESTIMATORS) -> None:
    """The name of one of the estimators."""
    if not isinstance(estimator, str):
        raise TypeError(f"estimator must be a str, but was {_describe(estimator)}")
    if estimator not in estimators:
        names = ", ".join(map(repr, estimators))
        hint = "; nearest_quantize takes the nearest code" if estimator in ESTIMATORS else ""
        raise ValueError(f"estimator must be one of {names}, but was {estimator!r}{hint}")


def check_count(name: str, value: SupportsIndex, lowest: int, highest: int = 2**63 - 1) -> int:
    """An integer from lowest to highest."""
    number = _integer(name, value, "an int")
    if not lowest <= number <= highest:
        limit = "below 2**63" if highest == 2**63 - 1 else f"at most {highest}"
        raise ValueError(f"{name} must be an int of at least {lowest} and {limit}, but was {number}")
    return number


def check_device(device: torch.device | str | None) -> torch.device:
    """The device of that name, with its number, or PyTorch's default device."""
    try:
        # An empty tensor knows the default device, in a form that torch.compile understands, and a GPU's
        # number.
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        # PyTorch asserts that it was built with CUDA.
        raise ValueError(f"device {str(device)!r} cannot be used here: {error}") from error


def check_temperature(
    temperature: float | Tensor,
    device: torch.device,
    compute_dtype: torch.dtype = torch.float32,
    *,
    read: bool = True,
    name: str = "temperature",
) -> float | Tensor:
    """The temperature as a float, or as a tensor where it needs a gradient or cannot be read here.

    compute_dtype: in which its reciprocal must be finite. read: look at the value of a CPU tensor, which a
    traced tensor does not have. name: the argument's.
    """
    if not isinstance(temperature, Tensor):
        # An abstract class is slow to ask.
        if type(temperature) is not float and (
            isinstance(temperature, bool) or not isinstance(temperature, numbers.Real)
        ):
            raise TypeError(
                f"{name} must be a float or a 0-d floating-point tensor, but was {_describe(temperature)}"
            )
        try:
            value = float(temperature)
        except OverflowError:
            raise ValueError(
                f"{name} must be finite and greater than 0, but was beyond every float"
            ) from None
        check_temperature_value(value, compute_dtype, name)
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
    check_temperature_value(value, compute_dtype, name)
    # Within a level of forward-mode AD it may carry a tangent.
    return temperature if temperature.requires_grad or forward_ad._current_level >= 0 else value


def check_temperature_value(value: float, compute_dtype: torch.dtype, name: str = "temperature") -> None:
    """That a temperature is finite and greater than 0, and its reciprocal finite in the compute dtype."""
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be finite and greater than 0, but was {value}")
    lowest = _LOWEST_TEMPERATURE[compute_dtype]
    if value < lowest:
        raise ValueError(
            f"{name} must be at least {lowest:.8g}, so that its reciprocal is finite in "
            f"{compute_dtype}, but was {value}"
        )


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


def check_seed_may_be_drawn() -> None:
    """A seed that torch.jit.trace sees drawn would be a constant of its program: the same noise for ever."""
    if torch._C._get_tracing_state() is not None:
        raise RuntimeError(
            "seed must be given under torch.jit.trace, which would freeze the noise that is drawn now; "
            "torch.export keeps the draw in the program"
        )


def check_floating(name: str, value: Tensor) -> None:
    """A dense tensor of a dtype that the quantizers take."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, but was {_describe(value)}")
    if value.dtype not in DTYPES:
        raise TypeError(f"{name} must be floating point ({_names(DTYPES)}), but was {value.dtype}")
    if value.is_nested:
        raise TypeError(f"{name} must be a dense tensor, but was nested")
    if value.layout != torch.strided:
        raise TypeError(f"{name} must be a dense (torch.strided) tensor, but its layout was {value.layout}")


def _check_codebook(codebook: Tensor, values: Tensor, values_name: str) -> None:
    check_floating("codebook", codebook)
    if codebook.dim() not in (1, 2) or 0 in codebook.shape:
        is_embedding = codebook.dim() == 3 and values_name == "logits"
        hint = "; codes that are vectors are passed as embedding=" if is_embedding else ""
        raise ValueError(
            "codebook must have shape (codes,) or (latents, codes) with at least one code, but had shape "
            f"{tuple(codebook.shape)}{hint}"
        )
    if codebook.shape[-1] > MOST_CODES:
        raise ValueError(
            f"codebook must hold at most {MOST_CODES} codes, but had shape {tuple(codebook.shape)}"
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


# The lowest temperature whose reciprocal is finite: the largest number's reciprocal rounds down to one whose
# own would overflow.
_LOWEST_TEMPERATURE = {torch.float32: 2.0**-128 * (1 + 2.0**-21), torch.float64: 2.0**-1024 * (1 + 2.0**-50)}


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
