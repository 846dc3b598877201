"""Measures of a kept run that are made of its tables, beside those that `fqvae evaluate` writes."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fqvae.metrics import latent_nmi

# Their names for people. The first two are those of codes by index, an arbitrary number for each.
DERIVED = {
    "disentanglement_by_index": "D, by index",
    "completeness_by_index": "C, by index",
    "pair_information": "information of pairs",
    "shared_codes": "shared codes",
}


def derived(content: Mapping[str, Any], by_index: Mapping[str, Any] | None = None) -> dict[str, float]:
    """What can be told of a run.

    pair_information: of codes, the sum over pairs of latents of their mutual information in nats, less that
        of independent latents with the same codes: each latent's samples in random order. So the bias of the
        plug-in estimate is gone. The total correlation of all latents cannot be estimated from so few samples
        and grows with the codes in use; that of pairs can.
    shared_codes: of models with one codebook, how much latents that tell different factors share its codes:
        the sum over codes of the smaller one of two latents' frequencies, from 0 to 1, the mean over pairs of
        latents of which each varies and tells most of another factor.

    Args:
        content: what `read_evaluation` gives. by_index: the same of its codes by index, if there is any.
    """
    found = {}
    latent = content["config"]["model.latent.kind"]
    of_index = content["scores"] if latent == "vector" else (by_index or {}).get("scores", {})
    for name in ("disentanglement", "completeness"):
        if name in of_index:
            found[f"{name}_by_index"] = of_index[name]
    if not content.get("usage"):
        return found
    usage = np.array(content["usage"])
    if content.get("nmi_latents"):
        found["pair_information"] = _pair_information(usage, np.array(content["nmi_latents"]))
    if content.get("nmi") and content["config"]["model.latent.codebooks"] == "shared":
        shared = _shared(usage, np.array(content["nmi"]))
        if shared is not None:
            found["shared_codes"] = shared
    return found


def _pair_information(usage: NDArray[Any], nmi: NDArray[Any]) -> float:
    """usage: (M, K), counts. nmi: (M, M), 2 I/(H + H)."""
    samples = int(usage[0].sum())
    frequency = usage / samples
    entropy = -(frequency * np.log(np.maximum(frequency, 1e-300))).sum(1)
    generator = np.random.default_rng(0)
    codes = np.arange(usage.shape[1])
    independent = np.stack([generator.permutation(np.repeat(codes, counts)) for counts in usage], 1)
    beyond = (nmi - latent_nmi(independent, discrete=True)) * (entropy[:, None] + entropy) / 2
    return float(np.triu(beyond, 1).sum())


def _shared(usage: NDArray[Any], nmi: NDArray[Any]) -> float | None:
    """usage: (M, K), counts. nmi: (F, M). None where all latents tell most of the same factor."""
    varies = np.flatnonzero((usage > 0).sum(1) > 1)
    factor, frequency = nmi.argmax(0), usage / usage.sum(1, keepdims=True)
    values = [
        float(np.minimum(frequency[one], frequency[other]).sum())
        for one, other in combinations(varies, 2)
        if factor[one] != factor[other]
    ]
    return float(np.mean(values)) if values else None
