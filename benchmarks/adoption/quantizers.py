"""Our quantizer with the settings that every case gives it."""

from __future__ import annotations

from typing import Any

from fqvae_kernels import ScalarQuantizer

SETTINGS: dict[str, Any] = {
    "hard": True,
    "kl_weight": 1e-4,
    "commitment_weight": 0.25,
    "codebook_weight": 0.25,
}


def scalars(**options: Any) -> ScalarQuantizer:
    """Ours as the table has it: `SETTINGS`, and what the case must say itself."""
    return ScalarQuantizer(**(SETTINGS | options))
