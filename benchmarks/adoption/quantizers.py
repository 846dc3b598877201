"""Our quantizer with the settings that every case gives it."""

from __future__ import annotations

from typing import Any

from fqvae_kernels import ScalarQuantizer

# What docs/choosing.md recommends for reconstruction from few bits.
SETTINGS: dict[str, Any] = {
    "estimator": "nearest",
    "codebook_weight": 1.0,
    "commitment_weight": 0.25,
    "revive_after": 10,
}


def scalars(**options: Any) -> ScalarQuantizer:
    """Ours as the table has it: `SETTINGS`, and what the case must say itself."""
    return ScalarQuantizer(**(SETTINGS | options))
