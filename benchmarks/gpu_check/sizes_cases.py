"""Calls of tests/gpu that a device alone makes, on tensors with shapes and no memory; see triton_cache.py.

tests/test_gpu_check.py compares their names; where a size changes there, change it here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from fqvae_kernels._call import Call, Incoming, Kept, Needs, Wants

Case = tuple[dict[str, Any], Callable[[], dict[str, Any]]]


def cases(backend: str) -> list[Case]:
    """test_more_than_2_to_the_31_scalars and ..._logits, and test_a_million_scalars_add_at_most_64_mib."""
    from fqvae_kernels.backends import triton
    from gpu_check.pretend import variants

    half = {"dtype": torch.float16, "device": "meta"}
    book = {"dtype": torch.float32, "device": "meta"}

    def scalars() -> dict[str, Any]:
        z, codes = torch.empty(2**31 + 19, **half), torch.empty(2, **book)
        for call in variants(Call()):
            triton.forward(z, codes, call, None)
        triton.forward(z, codes, Call(estimator="nearest", wants=Wants(kl=False)), None)
        return {}

    def logits() -> dict[str, Any]:
        rows = 2**25 + 1003
        call = Call(is_logits=True, wants=Wants(weights=True), needs=Needs(input=True))
        _both(torch.empty(rows, 64, **half), torch.empty(64, **book), call)
        return {}

    def million() -> dict[str, Any]:
        _both(torch.empty(2**20, **book), torch.empty(64, **book), Call(needs=Needs(True, True)))
        return {}

    def _both(input: Any, codes: Any, like: Call) -> None:
        for call in variants(like):
            stats = codes.new_empty((triton.stats_rows(call), input.shape[0]))
            quantized, indices, kl, _ = triton.forward(input, codes, call, stats)
            incoming = Incoming(quantized, kl)
            triton.backward(input, codes, call, Kept(indices, stats), incoming, call.needs)

    return [
        ({"what": name}, run)
        for name, run in (("scalars", scalars), ("logits", logits), ("million", million))
    ]
