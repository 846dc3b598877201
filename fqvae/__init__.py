"""Factor quantized variational autoencoders: FactorQVAE (arXiv 2409.14851) and eight companions.

`fqvae.load(run_or_checkpoint)` gives a trained model; the command `fqvae train` makes one. The quantizers are
those of `fqvae_kernels`.
"""

from fqvae.runs.checkpoint import load

__version__ = "0.1.0"

__all__ = ["__version__", "load"]
