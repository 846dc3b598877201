"""How the CUDA backend would launch a kernel on a GPU that is not here: asked of its own geometry."""

from __future__ import annotations

import functools
import importlib.util
import math
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from .specs import Gpu

ROOT = Path(__file__).resolve().parents[2]
THREADS = 128  # a block of the CUDA backend's kernels, and taken for those of others
_GEOMETRY = Path("fqvae_kernels") / "backends" / "_cuda" / "geometry.py"
_CUDA_KERNEL = re.compile(r"^(forward|backward)_(z|logits)_.*(float|double)$")


class Launch(NamedTuple):
    """lanes: threads that share a row. rows_a_thread: how often a thread's start is made use of.

    blocks: of the grid, of THREADS each. shared: bytes of dynamic shared memory of a block.
    """

    lanes: int
    rows_a_thread: float
    blocks: int
    shared: int


def launch_of(kernel: str, gpu: Gpu, rows: int, codes: int, tree: Path = ROOT) -> Launch:
    """The launch of a kernel of csrc/cuda under one codebook; one thread a row, of one row, for others.

    tree: the checkout whose geometry is asked.
    """
    found = _CUDA_KERNEL.match(kernel)
    if found is None:
        return Launch(1, 1.0, math.ceil(rows / THREADS), 0)
    geometry = geometry_of(tree)
    device = geometry.Device(gpu.multiprocessors, gpu.shared_memory)
    place = getattr(geometry, found[1])(
        rows, codes, 1, device, found[2] == "logits", 8 if found[3] == "double" else 4, **options_of(kernel)
    )
    rows_a_thread = rows * place.lanes / (place.blocks * geometry.THREADS)
    return Launch(place.lanes, rows_a_thread, place.blocks, place.shared)


def tabulates(gpu: Gpu, rows: int, codes: int, tree: Path = ROOT) -> int:
    """Blocks of the launch that fills the table for a forward pass of float32 scalars; 0: it reads none."""
    geometry = geometry_of(tree)
    device = geometry.Device(gpu.multiprocessors, gpu.shared_memory)
    pays = geometry.tabulates(rows, codes, 1, device, 4)
    return int(geometry.table_blocks(1, device)) if pays else 0


def options_of(kernel: str) -> dict[str, bool]:
    """What else the geometry of a kernel is told."""
    return {"tabulated": True} if "_table_" in kernel else {}


@functools.cache
def geometry_of(tree: Path) -> ModuleType:
    """The geometry module of a checkout, by its path: importing the package would import torch."""
    spec = importlib.util.spec_from_file_location("fqvae_cuda_geometry", tree / _GEOMETRY)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses and tuples look there
    spec.loader.exec_module(module)
    return module
