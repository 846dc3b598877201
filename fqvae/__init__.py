"""Factor quantized variational autoencoders: FactorQVAE (arXiv 2409.14851) and its companions.

`fqvae.load(run_or_checkpoint)` gives a trained model; the command `fqvae train` makes one.
`@fqvae.network("name")` registers a function that makes encoder and decoder. `fqvae.data`, `evaluation`,
`metrics`, `models`, `runs` and `training` are imported when they are first used. The quantizers are those of
`fqvae_kernels`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fqvae import data as data
    from fqvae import evaluation as evaluation
    from fqvae import metrics as metrics
    from fqvae import models as models
    from fqvae import runs as runs
    from fqvae import training as training
    from fqvae.models.own_networks import network
    from fqvae.runs.checkpoint import load

__version__ = "0.1.0"

__all__ = ["__version__", "load", "network"]


def __getattr__(name: str) -> Any:
    """Import PyTorch when the package is used: the command line handles Ctrl-C before that."""
    if name in ("data", "evaluation", "metrics", "models", "runs", "training"):
        return importlib.import_module(f"fqvae.{name}")
    if name == "network":
        from fqvae.models.own_networks import network

        return network
    if name == "load":
        from fqvae.runs.checkpoint import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
