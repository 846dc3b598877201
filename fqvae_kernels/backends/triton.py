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

from fqvae_kernels._seeds import seed_to_int
from fqvae_kernels._types import GumbelCall
from fqvae_kernels.backends._triton.launch import (
    WARPS,
    backward_programs,
    backward_tile,
    forward_tile,
    launch,
)
from fqvae_kernels.backends._triton.launch import interpreted as interpreted

name = "triton"
differentiable = False

# The first release that compiles the kernels; earlier ones know less of the language.
_OLDEST = (3, 4)


def _version() -> str | None:
    """Of Triton, which is not imported for it; distributions of several names hold it. None: not there."""
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

# What the forward pass keeps of a row for the backward pass; see _triton/score.py.
stats_rows = 7

# The tile of the kernel that adds up partial sums: so many lines at once that each thread has 32 loads on
# their way, each warp a line.
_SUM_TILE = {"COUNT": 128, "WIDTH": 32}

# As _triton/score.py numbers them.
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


def gumbel_forward(
    input: Tensor, codebook: Tensor, call: GumbelCall, stats: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """See `fqvae_kernels.backends.Backend`."""
    codes = codebook.shape[-1]
    shape = input.shape[:-1] if call.is_logits else input.shape
    quantized = input.new_empty(shape)
    indices = input.new_empty(shape, dtype=torch.int64)
    kl = codebook.new_empty(shape)
    rows = kl.numel()
    weights = input.new_empty((*shape, codes)) if call.want_weights else None
    if stats is None and weights is not None and not call.hard:
        stats = codebook.new_empty((stats_rows, rows))  # the kernel that writes soft weights reads them
    if rows == 0:
        return quantized, indices, kl, weights

    tile = forward_tile(rows, codes)
    tiling = {"ROWS": tile.rows, "BLOCKS": tile.blocks}
    programs = -(-rows // tile.rows)
    forward = _kernels("forward")
    common = _common_arguments(input, codebook, call, rows)
    per_latent = {"PER_LATENT": _latents(codebook) > 1}
    launch(
        forward.gumbel_forward_kernel,
        programs,
        {
            **common,
            **per_latent,
            "quantized": quantized,
            "indices": indices,
            "kl": kl,
            "stats": stats,
            "HARD": call.hard,
            **tiling,
        },
    )
    if weights is not None and call.hard:
        launch(
            forward.one_hot_kernel,
            programs,
            {"kl": kl, "indices": indices, "weights": weights, "rows": rows, "codes": codes, **tiling},
        )
    elif weights is not None:
        _weights(common, per_latent, tiling, programs, stats=stats, weights=weights)
    return quantized, indices, kl, weights


def gumbel_backward(
    input: Tensor,
    codebook: Tensor,
    call: GumbelCall,
    indices: Tensor,
    stats: Tensor,
    grad_quantized: Tensor | None,
    grad_kl: Tensor | None,
    grad_weights: Tensor | None,
    needs: tuple[bool, bool, bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """See `fqvae_kernels.backends.KernelBackend`."""
    rows, codes, latents = indices.numel(), codebook.shape[-1], _latents(codebook)
    grad_codebook = torch.zeros_like(codebook) if needs[1] else None
    grad_temperature = codebook.new_zeros((), dtype=torch.float64) if needs[2] else None
    if rows == 0:
        return torch.empty_like(input) if needs[0] else None, grad_codebook, grad_temperature

    tile = backward_tile(codes)
    one_chunk = codes <= 4 * tile.groups * tile.blocks
    programs = backward_programs(rows // latents, latents, codes, tile)
    # Chunks of codes add up a row's gradient in memory, which takes the compute dtype.
    in_place = call.is_logits or one_chunk
    grad_input = torch.empty_like(input, dtype=None if in_place else codebook.dtype) if needs[0] else None
    partial_codebook = codebook.new_empty((programs * WARPS, latents, codes)) if needs[1] else None
    partial_temperature = codebook.new_empty((programs, latents)) if needs[2] else None
    common = _common_arguments(input, codebook, call, rows)
    weights_mean = None
    if grad_weights is not None:
        weights_mean = codebook.new_empty(rows)
        forward = forward_tile(rows, codes)
        _weights(
            common,
            {"PER_LATENT": latents > 1},
            {"ROWS": forward.rows, "BLOCKS": forward.blocks},
            -(-rows // forward.rows),
            stats=stats,
            indices=indices,
            grad_weights=grad_weights,
            mean=weights_mean,
        )
    launch(
        _kernels("backward").gumbel_backward_kernel,
        programs * latents,
        {
            **common,
            "indices": indices,
            "stats": stats,
            "grad_quantized": grad_quantized,
            "grad_kl": grad_kl,
            "grad_weights": grad_weights,
            "weights_mean": weights_mean,
            "grad_input": grad_input,
            "partial_codebook": partial_codebook,
            "partial_temperature": partial_temperature,
            "programs": programs,
            "HARD": call.hard,
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
        _sum_partials(partial_temperature, grad_temperature, programs * latents)
    return None if grad_input is None else grad_input.to(input.dtype), grad_codebook, grad_temperature


def nearest_forward(z: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
    """See `fqvae_kernels.backends.Backend`."""
    quantized = torch.empty_like(z)
    indices = torch.empty_like(z, dtype=torch.int64)
    rows, codes, latents = z.numel(), codebook.shape[-1], _latents(codebook)
    if rows == 0:
        return quantized, indices
    tile = forward_tile(rows, codes)
    launch(
        _kernels("forward").nearest_kernel,
        -(-rows // tile.rows),
        {
            "input": z,
            "codebook": codebook,
            "quantized": quantized,
            "indices": indices,
            "rows": rows,
            "codes": codes,
            "latents": latents,
            "PER_LATENT": latents > 1,
            "ROWS": tile.rows,
            "BLOCKS": tile.blocks,
        },
    )
    return quantized, indices


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


def _latents(codebook: Tensor) -> int:
    return codebook.shape[0] if codebook.dim() == 2 else 1


def _common_arguments(input: Tensor, codebook: Tensor, call: GumbelCall, rows: int) -> dict[str, Any]:
    """What forward, weights and backward have in common.

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
        "latents": _latents(codebook),
        "row_offset": call.row_offset,
        "IS_LOGITS": call.is_logits,
    }


def _seed_arguments(seed: int | Tensor, like: Tensor) -> dict[str, Any]:
    if isinstance(seed, Tensor) and seed.device == like.device:
        return {"seed_value": 0, "seed_address": seed.data_ptr()}
    bits = seed_to_int(seed)
    return {"seed_value": bits - 2**64 if bits >= 2**63 else bits, "seed_address": 0}


def _weights(
    common: dict[str, Any],
    per_latent: dict[str, bool],
    tiling: dict[str, int],
    programs: int,
    *,
    stats: Tensor | None,
    indices: Tensor | None = None,
    weights: Tensor | None = None,
    grad_weights: Tensor | None = None,
    mean: Tensor | None = None,
) -> None:
    """Store the soft weights, or average the gradient of the weights under them."""
    launch(
        _kernels("forward").gumbel_weights_kernel,
        programs,
        {
            **common,
            **per_latent,
            "stats": stats,
            "indices": indices,
            "weights": weights,
            "grad_weights": grad_weights,
            "mean": mean,
            **tiling,
        },
    )


def _sum_partials(partials: Tensor, sums: Tensor, count: int) -> None:
    width = sums.numel()
    launch(
        _kernels("backward").sum_partials_kernel,
        -(-width // _SUM_TILE["WIDTH"]),
        {"partials": partials, "sums": sums, "count": count, "width": width, **_SUM_TILE},
    )
