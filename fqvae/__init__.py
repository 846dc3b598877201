"""Factor quantized variational autoencoders.

The models, the data and the metrics of FactorQVAE (arXiv 2409.14851) come here; they build on the quantizers
of `fqvae_kernels`, which never import this package. This release holds the kernels only.
"""

__version__ = "0.1.0"

__all__ = ["__version__"]
