"""The penalties that a model can be charged with, one file for those of one idea.

A new one is a `Penalty` in a file of its own and its name below; `weights` then has a key for it.
"""

from fqvae.models.penalties.activity import ACTIVITY, NONNEGATIVITY
from fqvae.models.penalties.covariance import COVARIANCE, VARIANCE
from fqvae.models.penalties.decomposition import (
    BATCH_TOTAL_CORRELATION,
    DIMENSION_WISE_KL,
    INDEX_CODE_INFORMATION,
)
from fqvae.models.penalties.distance import CODEBOOK, COMMITMENT
from fqvae.models.penalties.hausdorff import HAUSDORFF
from fqvae.models.penalties.kl import KL
from fqvae.models.penalties.penalty import Penalty, Seen
from fqvae.models.penalties.total_correlation import TOTAL_CORRELATION

PENALTIES: dict[str, Penalty] = {
    each.name: each
    for each in (
        KL,
        TOTAL_CORRELATION,
        NONNEGATIVITY,
        ACTIVITY,
        COMMITMENT,
        CODEBOOK,
        INDEX_CODE_INFORMATION,
        BATCH_TOTAL_CORRELATION,
        DIMENSION_WISE_KL,
        COVARIANCE,
        VARIANCE,
        HAUSDORFF,
    )
}

__all__ = ["PENALTIES", "Penalty", "Seen"]
