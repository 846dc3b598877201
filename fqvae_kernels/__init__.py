"""Quantizers for PyTorch: Gumbel-Softmax and nearest code in one pass over the data.

`ScalarQuantizer` is the module for scalars, `GumbelVectorQuantizer` the one for vectors; `gumbel_quantize`
and its neighbours are the functions under them.

`python -m fqvae_kernels` says which backends serve on this machine.
"""

from fqvae_kernels._types import GumbelQuantized, NearestQuantized
from fqvae_kernels.backends import available_backends
from fqvae_kernels.functional import (
    gumbel_noise,
    gumbel_quantize,
    gumbel_quantize_logits,
    gumbel_softmax,
    nearest_quantize,
)
from fqvae_kernels.patching import patch, patched, unpatch
from fqvae_kernels.quantizer import QuantizerOutput, ScalarQuantizer, TemperatureSchedule
from fqvae_kernels.vector import GumbelVectorQuantizer

__version__ = "0.1.0"

__all__ = [
    "GumbelQuantized",
    "GumbelVectorQuantizer",
    "NearestQuantized",
    "QuantizerOutput",
    "ScalarQuantizer",
    "TemperatureSchedule",
    "__version__",
    "available_backends",
    "gumbel_noise",
    "gumbel_quantize",
    "gumbel_quantize_logits",
    "gumbel_softmax",
    "nearest_quantize",
    "patch",
    "patched",
    "unpatch",
]
