"""Codes in the order that measures read."""

from __future__ import annotations

from fqvae.metrics import code_ranks
from fqvae.runs import Codes, Run


def ordered_codes(run: Run, codes: Codes) -> Codes:
    """Codes as metrics want them: discrete ones by their rank among the codebook's values.

    An index has no order, and trees read order. Codes that are vectors have none either and stay indices.
    """
    if not run.discrete or run.config.model.latent.kind == "vector":
        return codes
    return code_ranks(codes, run.model.latent.codebook.detach().cpu())
