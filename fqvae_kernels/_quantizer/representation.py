"""How a quantizer reads in the representation of a model."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def settings(module: torch.nn.Module, defaults: Mapping[str, object]) -> list[str]:
    """name=value of each attribute that is not at its default, in their order; tensors are left out."""
    shown = []
    for name, default in defaults.items():
        value = getattr(module, name)
        if not isinstance(value, Tensor) and value != default:
            shown.append(f"{name}={value:g}" if isinstance(value, float) else f"{name}={value!r}")
    return shown
