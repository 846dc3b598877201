"""What the launches of a call have in common with those of every call of the same shapes.

A plan is made once and kept: geometry, kernels and most of their arguments follow from shapes, dtypes and the
device. A call packs only what is new: addresses, seed, row offset, temperature and flags.
"""

from __future__ import annotations

import functools
import struct
from typing import NamedTuple

import torch

from fqvae_kernels.backends._cuda import arguments, geometry
from fqvae_kernels.backends._cuda.launcher import Launch, Launcher

# Of the kernels whose arguments begin with a `Call`, by the first word of their names: how many addresses
# stand behind it, and `Launch.reads`. The `Call` itself has four.
_ADDRESSES = {"forward": (6, 5), "backward": (9, 10), "nearest": (2, 4), "posterior": (1, 4)}

TABLE = arguments.call_struct(_ADDRESSES["posterior"][0])  # the layout of PosteriorArguments


class Plan(NamedTuple):
    """How a kernel goes over all rows of a call."""

    launch: Launch
    layout: struct.Struct  # of its arguments, see `arguments.pack_call`
    # For each launch, what `arguments.call_shape` packs: none without rows, more than one where the rows'
    # numbers cross a multiple of 2**32.
    shapes: tuple[arguments.CallShape, ...]
    parts: int  # blocks of all launches for each codebook: each leaves a part of the rows' common gradients
    fours: bool  # may vectors of four numbers be loaded, if memory is aligned?
    table: Launch | None = None  # goes before: it fills the table that the kernel reads


@functools.lru_cache(maxsize=1024)
def over_rows(
    kernel: str,
    launcher: Launcher,
    device: torch.device,
    dtype: torch.dtype,
    codebook_shape: torch.Size,
    rows: int,
    first: int,
    wide: bool,
    kl: bool,
) -> Plan:
    """The plan of a kernel whose arguments begin with a `Call`.

    Args:
        kernel: its name before the compute type.
        launcher: its devices decide the geometry.
        dtype: of the input.
        first: so many rows from the first on have numbers with one high word.
        wide: are there tensors of shape (rows, codes)?
        kl: may a forward pass read it from a table? Only where it is wanted.

    Raises:
        ValueError: more codebooks than a grid has rows.
    """
    codes = codebook_shape[-1]
    codebooks = codebook_shape[0] if len(codebook_shape) == 2 else 1
    if codebooks > geometry.MOST_CODEBOOKS:
        raise ValueError(
            f"codebook may hold at most {geometry.MOST_CODEBOOKS} codebooks on backend 'cuda', "
            f"but had {codebooks}"
        )
    real, real_size = _real(dtype)
    kind = kernel.partition("_")[0]
    drawn = "_drawn_" in kernel
    gpu = launcher.describe(device)
    table = None
    if kind == "backward":
        chosen = geometry.backward(rows, codes, codebooks, gpu, wide, real_size, drawn=drawn)
    elif (
        kernel == "forward_z"
        and kl
        and not wide
        and geometry.tabulates(rows, codes, codebooks, gpu, real_size)
    ):
        kernel = "forward_z_table"
        chosen = geometry.forward(rows, codes, codebooks, gpu, wide, real_size, tabulated=True)
        blocks = geometry.table_blocks(codebooks, gpu), codebooks
        table = Launch("posterior_float", blocks, chosen.shared, _ADDRESSES["posterior"][1])
    else:
        chosen = geometry.forward(rows, codes, codebooks, gpu, wide, real_size, drawn=drawn)
    shapes = tuple(
        arguments.call_shape(rows, begin, end, codebooks, codes, chosen, dtype)
        for begin, end in geometry.launches(rows, 2**32 - first)
    )
    addresses, reads = _ADDRESSES[kind]
    launch = Launch(f"{kernel}_{real}", (chosen.blocks, codebooks), chosen.shared, reads)
    layout = arguments.call_struct(addresses)
    return Plan(launch, layout, shapes, len(shapes) * chosen.blocks, wide and codes % 4 == 0, table)


@functools.lru_cache(maxsize=1024)
def reduce(*lengths: int) -> Launch:
    """The launch that adds up parts of so many numbers, one or two sorts of them."""
    return Launch("reduce", (-(-max(lengths) // geometry.REDUCED_AT_ONCE), len(lengths)), 0, len(lengths))


@functools.lru_cache(maxsize=1024)
def slopes(launcher: Launcher, device: torch.device, dtype: torch.dtype, rows: int) -> Launch:
    """The launch that multiplies at least one row's gradients by its slopes."""
    most = geometry.NOISE_BLOCKS * launcher.describe(device).multiprocessors
    blocks = min(-(-rows // geometry.THREADS), most)
    return Launch(f"backward_slopes_{_real(dtype)[0]}", (blocks, 1), 0, reads=3)


@functools.lru_cache(maxsize=1024)
def noise(launcher: Launcher, device: torch.device, dtype: torch.dtype, rows: int, codes: int) -> Launch:
    """The launch that writes the noise of at least one row."""
    blocks = -(-rows * -(-codes // 4) // geometry.THREADS)
    most = geometry.NOISE_BLOCKS * launcher.describe(device).multiprocessors
    return Launch(f"noise_{_real(dtype)[0]}", (min(blocks, most), 1), 0, reads=1)


def _real(dtype: torch.dtype) -> tuple[str, int]:
    """The compute type of an input, and its bytes."""
    return ("double", 8) if dtype == torch.float64 else ("float", 4)
