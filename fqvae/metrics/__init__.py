"""Measures of disentanglement on plain arrays, NumPy or torch, of anybody's model.

Codes are arrays (samples, latents), factors of variation (samples, factors) of integers; every function
returns plain floats and NumPy arrays, the same for the same call. Constant factors are left out everywhere,
since there is nothing to know of them; what else degenerate input gives is said by each function. Nothing is
NaN.

    dci, infomec                          the two that papers on quantized latents compare
    mig, sap, modularity, explicitness    on the same arrays
    factorvae_score, beta_vae_score       on a sampler that holds a factor fixed
    total_correlation, latent_nmi         of the codes alone
    code_usage, code_ranks                of indices into a codebook

Plug-in estimates of information grow as samples become fewer: compare only scores of equal sample sizes.
Needs scikit-learn.
"""

from fqvae.metrics._classifiers import TrainTest
from fqvae.metrics._codes import CodeUsage, code_ranks, code_usage, latent_nmi, total_correlation
from fqvae.metrics._dci import DCI, dci
from fqvae.metrics._gaps import Gap, mig, sap
from fqvae.metrics._infomec import InfoMEC, infomec
from fqvae.metrics._ridgeway import Modularity, explicitness, modularity
from fqvae.metrics._sampled import (
    FactorSampler,
    GridSampler,
    TableSampler,
    beta_vae_score,
    factorvae_score,
)

__all__ = [
    "DCI",
    "CodeUsage",
    "FactorSampler",
    "Gap",
    "GridSampler",
    "InfoMEC",
    "Modularity",
    "TableSampler",
    "TrainTest",
    "beta_vae_score",
    "code_ranks",
    "code_usage",
    "dci",
    "explicitness",
    "factorvae_score",
    "infomec",
    "latent_nmi",
    "mig",
    "modularity",
    "sap",
    "total_correlation",
]
