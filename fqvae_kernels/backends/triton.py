"""The Triton kernels as a backend: CUDA tensors, or CPU tensors under Triton's interpreter.

Nothing is imported of Triton until a kernel runs. With TRITON_INTERPRET=1 in the environment, before the
first import of triton, the kernels run in Python on CPU tensors: a tool for tests, thousands of times slower,
which backend=None never takes.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import pathlib
import re
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from fqvae_kernels._call import Call, Gradients, Incoming, Kept, Needs, Outputs, gives_codes
from fqvae_kernels._seeds import seed_to_int
from fqvae_kernels._tensors import codebooks
from fqvae_kernels.backends._triton.launch import (
    WARPS,
    ForwardTile,
    backward_programs,
    backward_tile,
    forward_tile,
    launch,
)
from fqvae_kernels.backends._triton.launch import interpreted as interpreted

name = "triton"
differentiable = False
devices = ("cuda",)

# The first release that compiles the kernels; earlier ones know less of the language.
_OLDEST = (3, 4)


def _version() -> str | None:
    """The version of the installed Triton, None if there is none.

    It is read from Triton's own file: to import Triton takes long, and packages of several names hold it.
    """
    spec = importlib.util.find_spec("triton")
    if spec is None:
        return None
    text = "" if spec.origin is None else pathlib.Path(spec.origin).read_text(encoding="utf-8")
    found = re.search(r"^__version__ = ['\"]([^'\"]+)", text, re.MULTILINE)
    return "unknown" if found is None else found[1]


def _unfit(version: str | None) -> str | None:
    """Why this release of Triton cannot serve, or None."""
    if version is None:
        return "the package triton is not installed"
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if numbers is not None and tuple(map(int, numbers.groups())) < _OLDEST:
        return f"it needs triton {'.'.join(map(str, _OLDEST))} or newer, but triton {version} is installed"
    return None


# Asked once, and not while torch.compile looks on.
_UNFIT = _unfit(_version())

# The tile of the kernel that adds up partial sums: so many lines at once that each thread has 32 loads on
# their way, each warp a line.
_SUM_TILE = {"COUNT": 128, "WIDTH": 32}

# Weights that a program of one_hot_kernel stores.
_ONE_HOT_SIZE = 1024

# As _triton/cost.py numbers them.
_TEMPERATURE_TYPES = {torch.float64: 1, torch.float32: 2, torch.float16: 3, torch.bfloat16: 4}


def unavailable_reason(device: torch.device | None) -> str | None:
    """Why the kernels cannot serve this device, or None."""
    if _UNFIT is not None:
        return _UNFIT
    if interpreted():
        if device is not None and device.type != "cpu":
            return "under TRITON_INTERPRET=1 it serves CPU tensors only"
        return None
    if not torch.cuda.is_available():
        return "PyTorch finds no CUDA device (TRITON_INTERPRET=1 would run the kernels in Python)"
    if device is not None and device.type != "cuda":
        return "it serves CUDA tensors only"
    return None


def stats_rows(call: Call) -> int:
    """See `fqvae_kernels.backends.KernelBackend`; _triton/cost.py says what they hold."""
    if call.estimator == "reinmax":
        return 8
    return 7 if call.wants.kl else 5


def forward(input: Tensor, codebook: Tensor, call: Call, stats: Tensor | None) -> Outputs:
    """See `fqvae_kernels.backends.Backend`."""
    if call.estimator == "nearest":
        return _nearest(input, codebook, call)
    codes, wants = codebook.shape[-1], call.wants
    shape = input.shape[:-1] if call.is_logits else input.shape
    rows = shape.numel()
    # One-hot weights are made of the indices, and are NaN where quantized is.
    one_hot = wants.weights and gives_codes(call)
    quantized = input.new_empty(shape) if wants.quantized or one_hot else None
    indices = input.new_empty(shape, dtype=torch.int64) if wants.indices or one_hot else None
    kl = codebook.new_empty(shape) if wants.kl else None
    weights = input.new_empty((*shape, codes)) if wants.weights else None
    outputs = quantized if wants.quantized else None, indices if wants.indices else None, kl, weights
    if rows == 0:
        return outputs
    if stats is None and weights is not None and not one_hot:
        stats = codebook.new_empty((stats_rows(call), rows))  # the kernel that writes soft weights reads them

    tile = forward_tile(rows, codes)
    common = {**_common_arguments(input, codebook, call, rows), **_rows_in_lanes(codebook, tile)}
    arguments = {**common, "quantized": quantized, "indices": indices, "kl": kl, "stats": stats}
    programs = -(-rows // tile.rows)
    if call.estimator == "gumbel":
        launch(_kernels("forward").gumbel_forward_kernel, programs, {**arguments, "HARD": call.hard})
    else:
        # Without stats the estimators' passes are the same, and so is the program.
        reinmax = stats is not None and call.estimator == "reinmax"
        launch(_kernels("drawn").drawn_forward_kernel, programs, {**arguments, "REINMAX": reinmax})
    if one_hot:
        arguments = {"marks": quantized, "indices": indices, "weights": weights, "rows": rows, "codes": codes}
        size = {"SIZE": _ONE_HOT_SIZE}
        launch(_kernels("forward").one_hot_kernel, -(-rows * codes // _ONE_HOT_SIZE), arguments | size)
    elif weights is not None:
        arguments = {**common, "stats": stats, "weights": weights}
        launch(_kernels("forward").gumbel_weights_kernel, programs, arguments)
    return outputs


def backward(
    input: Tensor, codebook: Tensor, call: Call, kept: Kept, incoming: Incoming, needs: Needs
) -> Gradients:
    """See `fqvae_kernels.backends.KernelBackend`."""
    rows, codes, books = kept.indices.numel(), codebook.shape[-1], codebooks(codebook)
    grad_codebook = torch.zeros_like(codebook) if needs.codebook else None
    grad_temperature = codebook.new_zeros((), dtype=torch.float64) if needs.temperature else None
    if rows == 0:
        return torch.empty_like(input) if needs.input else None, grad_codebook, grad_temperature
    needs_temperature = needs.temperature and call.estimator != "reinmax"  # whose gradient is 0
    if not (needs.input or needs.codebook or needs_temperature):
        return None, None, grad_temperature

    float64 = codebook.dtype == torch.float64
    tile = backward_tile(codes, most_groups=1 if float64 and needs_temperature else 2)
    one_chunk = codes <= 4 * tile.groups * tile.blocks
    programs = backward_programs(rows // books, books, codes, tile)
    # Chunks of codes add up a row's gradient in memory, which takes the compute dtype.
    in_place = call.is_logits or one_chunk
    grad_input = torch.empty_like(input, dtype=None if in_place else codebook.dtype) if needs.input else None
    partial_codebook = codebook.new_empty((programs * WARPS, books, codes)) if needs.codebook else None
    partial_temperature = codebook.new_empty((programs, books)) if needs_temperature else None
    common = {
        **_common_arguments(input, codebook, call, rows),
        "indices": kept.indices,
        "stats": kept.stats,
        # The gradient of the temperature wants logarithms of the weights, which are lost in small ones.
        "weights": None if needs_temperature else kept.weights,
        "grad_weights": incoming.weights,
        "ESTIMATOR": call.estimator,
    }
    means = None
    # In float64 the registers do not suffice to average in the backward kernel.
    if incoming.weights is not None and (float64 or not one_chunk):
        means = _weights_means(common, codebook, call, rows)
    launch(
        _kernels("backward").backward_kernel,
        programs * books,
        {
            **common,
            "grad_quantized": incoming.quantized,
            "grad_kl": incoming.kl,
            "means": means,
            "grad_input": grad_input,
            "partial_codebook": partial_codebook,
            "partial_temperature": partial_temperature,
            "programs": programs,
            "GIVES_CODES": gives_codes(call),
            "ONE_CHUNK": one_chunk,
            "WARPS": WARPS,
            "GROUPS": tile.groups,
            "ROWS": tile.rows,
            "BLOCKS": tile.blocks,
        },
    )
    if grad_codebook is not None and partial_codebook is not None:
        _sum_partials(partial_codebook, grad_codebook, programs * WARPS)
    if grad_temperature is not None and partial_temperature is not None:
        _sum_partials(partial_temperature, grad_temperature, programs * books)
    return None if grad_input is None else grad_input.to(input.dtype), grad_codebook, grad_temperature


def _weights_means(common: dict[str, Any], codebook: Tensor, call: Call, rows: int) -> Tensor:
    """The means of the weights' gradient, where the backward kernel does not take them itself."""
    tile = forward_tile(rows, codebook.shape[-1])
    means = codebook.new_empty((2 if call.estimator == "reinmax" else 1, rows))
    arguments = {**common, **_rows_in_lanes(codebook, tile), "means": means}
    launch(_kernels("backward").weights_mean_kernel, -(-rows // tile.rows), arguments)
    return means


def _nearest(z: Tensor, codebook: Tensor, call: Call) -> Outputs:
    quantized = torch.empty_like(z) if call.wants.quantized else None
    indices = torch.empty_like(z, dtype=torch.int64) if call.wants.indices else None
    rows = z.numel()
    if rows > 0:
        tile = forward_tile(rows, codebook.shape[-1])
        arguments = {
            "input": z,
            "codebook": codebook,
            "quantized": quantized,
            "indices": indices,
            "rows": rows,
            "codes": codebook.shape[-1],
            "codebooks": codebooks(codebook),
        }
        arguments |= _rows_in_lanes(codebook, tile)
        launch(_kernels("forward").nearest_kernel, -(-rows // tile.rows), arguments)
    return quantized, indices, None, None


def gumbel_noise(
    seed: int | Tensor, rows: int, codes: int, row_offset: int, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """See `fqvae_kernels.backends.Backend`."""
    noise = torch.empty((rows, codes), dtype=dtype, device=device)
    if rows == 0:
        return noise
    tile = forward_tile(rows, codes)
    launch(
        _kernels("noise").gumbel_noise_kernel,
        -(-rows // tile.rows) * -(-codes // (4 * tile.blocks)),
        {
            "noise": noise,
            **_seed_arguments(seed, noise),
            "rows": rows,
            "codes": codes,
            "row_offset": row_offset,
            "ROWS": tile.rows,
            "BLOCKS": tile.blocks,
        },
    )
    return noise


@functools.cache
def _kernels(module: str) -> ModuleType:
    """A module of kernels: importing it imports triton."""
    return importlib.import_module(f"fqvae_kernels.backends._triton.{module}")


def _rows_in_lanes(codebook: Tensor, tile: ForwardTile) -> dict[str, Any]:
    """What the kernels that have rows in lanes are compiled for."""
    return {"SEVERAL_CODEBOOKS": codebooks(codebook) > 1, "ROWS": tile.rows, "BLOCKS": tile.blocks}


def _common_arguments(input: Tensor, codebook: Tensor, call: Call, rows: int) -> dict[str, Any]:
    """The arguments that forward and backward kernels have in common.

    A seed or temperature that lies on the device is read there, from its address. As integers, addresses are
    the same types of arguments for all: the same compiled program serves.
    """
    temperature = call.temperature
    value, address, type = 0.0, 0, 0
    if isinstance(temperature, Tensor) and temperature.device == input.device:
        address, type = temperature.data_ptr(), _TEMPERATURE_TYPES[temperature.dtype]
    else:
        value = float(temperature)
    return {
        "input": input,
        "codebook": codebook,
        **_seed_arguments(call.seed, input),
        "temperature_value": value,
        "temperature_address": address,
        "temperature_type": type,
        "rows": rows,
        "codes": codebook.shape[-1],
        "codebooks": codebooks(codebook),
        "row_offset": call.row_offset,
        "IS_LOGITS": call.is_logits,
    }


def _seed_arguments(seed: int | Tensor, like: Tensor) -> dict[str, Any]:
    if isinstance(seed, Tensor) and seed.device == like.device:
        return {"seed_value": 0, "seed_address": seed.data_ptr()}
    bits = seed_to_int(seed)
    return {"seed_value": bits - 2**64 if bits >= 2**63 else bits, "seed_address": 0}


def _sum_partials(partials: Tensor, sums: Tensor, count: int) -> None:
    width = sums.numel()
    launch(
        _kernels("backward").sum_partials_kernel,
        -(-width // _SUM_TILE["WIDTH"]),
        {"partials": partials, "sums": sums, "count": count, "width": width, **_SUM_TILE},
    )
