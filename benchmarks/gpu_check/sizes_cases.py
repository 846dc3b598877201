"""Calls of tests/gpu that a device alone makes, on tensors with shapes and no memory; see triton_cache.py.

tests/test_gpu_check.py compares their names; where a size changes there, change it here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from fqvae_kernels._types import GumbelCall

Case = tuple[dict[str, Any], Callable[[], dict[str, Any]]]


def cases(backend: str) -> list[Case]:
    """test_more_than_2_to_the_31_scalars and ..._logits, and test_a_million_scalars_add_at_most_64_mib."""
    from fqvae_kernels.backends import triton
    from gpu_check.pretend import variants

    half = {"dtype": torch.float16, "device": "meta"}
    book = {"dtype": torch.float32, "device": "meta"}

    def scalars() -> dict[str, Any]:
        z, codes = torch.empty(2**31 + 19, **half), torch.empty(2, **book)
        for call in variants(GumbelCall(False, False, False, 0, 1, 0.5)):
            triton.gumbel_forward(z, codes, call, None)
        triton.nearest_forward(z, codes)
        return {}

    def logits() -> dict[str, Any]:
        rows = 2**25 + 1003
        _both(torch.empty(rows, 64, **half), torch.empty(64, **book), True, True, (True, False, False))
        return {}

    def million() -> dict[str, Any]:
        _both(torch.empty(2**20, **book), torch.empty(64, **book), False, False, (True, True, False))
        return {}

    def _both(input: Any, codes: Any, is_logits: bool, weights: bool, needs: tuple[bool, bool, bool]) -> None:
        rows = input.shape[0]
        for call in variants(GumbelCall(is_logits, False, weights, 0, 1, 0.5)):
            stats = codes.new_empty((triton.stats_rows, rows))
            quantized, indices, kl, _ = triton.gumbel_forward(input, codes, call, stats)
            triton.gumbel_backward(input, codes, call, indices, stats, quantized, kl, None, needs)

    return [
        ({"what": name}, run)
        for name, run in (("scalars", scalars), ("logits", logits), ("million", million))
    ]
