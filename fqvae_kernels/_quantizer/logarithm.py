"""Parameters that are learned through their logarithm, and so never get negative: `log_...`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fqvae_kernels._tensors import whole


class Logarithmic(torch.nn.Module):
    """The part of a quantizer that loads its parameters `log_...`: (1,), or a value for each codebook.

    They are never 0-d, which FSDP2 refuses. Where a `state_dict` holds one that is, as those of earlier
    editions do, it is loaded as (1,).
    """

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *arguments: Any) -> None:
        for name in self._parameters:
            saved = state_dict.get(prefix + name)
            if name.startswith("log_") and isinstance(saved, Tensor) and saved.dim() == 0:
                state_dict[prefix + name] = saved.reshape(1)
        super()._load_from_state_dict(state_dict, prefix, *arguments)


def read(logarithm: Tensor) -> Tensor:
    """Such a parameter, 0-d where it is a single value, and all of it where FSDP2 leaves a rank its part."""
    logarithm = whole(logarithm)
    return logarithm.reshape(()) if logarithm.numel() == 1 else logarithm
