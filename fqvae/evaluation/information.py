"""What latents tell of factors beyond chance, as naming and diagnosis want it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fqvae.metrics._arrays import Floats
from fqvae.metrics._information import chance_share


def factor_shares(content: Mapping[str, Any]) -> Floats:
    """An evaluation's nmi without what independent codes have, (F, M), all factors, in [0, 1].

    Continuous codes are measured by nearest neighbours, which see nothing in independent ones.

    content: as `read_evaluation` gives it, with nmi.
    """
    nmi = np.asarray(content["nmi"], dtype=np.float64)
    if content.get("codes_used") is None:
        return np.minimum(nmi, 1.0)  # an estimate that may exceed it
    sizes, samples = content["data"]["factor_sizes"], content["options"]["train"]
    return beyond_chance(nmi, chance_share(np.asarray(sizes), np.asarray(content["codes_used"]), samples))


def beyond_chance(shares: Floats, chance: Floats) -> Floats:
    """The shares less those of chance, at least 0."""
    return np.maximum(shares - chance, 0.0)
