"""What a report shows of a model: held-out images, their codes, and what the latents tell of the factors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fqvae.evaluation.information import beyond_chance
from fqvae.figures.naming import NONE, named_factor, readable
from fqvae.figures.runs import code_values
from fqvae.figures.style import two_decimals
from fqvae.figures.traversal import used_codes
from fqvae.metrics import CodeUsage, code_usage
from fqvae.metrics._arrays import binned
from fqvae.metrics._information import chance_share, discrete_information, entropies
from fqvae.runs import Codes, Run, encode, held_out

_BINS = 20  # of equal width, that the values of a continuous latent are cut into


@dataclass(frozen=True, eq=False)
class Sample:
    """Held-out images, encoded; the first ones are those that the page shows.

    index: int64 (samples,), the images' numbers. codes: (samples, M), int64 if discrete, else float32.
    values: of the codes, (K,) or (M, K); None where they have no order.
    usage: of a discrete model. used: for each latent the codes that it uses, in the order of their values.
    nmi: float64 (F, M), I(factor; latent) / H(factor), less what independent codes have. factors: their
    names, as they are read; none where the images have no labels.
    """

    index: NDArray[np.int64]
    codes: NDArray[np.int64] | NDArray[np.float32]
    values: NDArray[np.float32] | None
    usage: CodeUsage | None
    used: list[NDArray[np.int64]] | None
    nmi: NDArray[np.float64]
    factors: tuple[str, ...]

    @property
    def varies(self) -> NDArray[np.bool_]:
        """Whether each latent takes more than one value, bool (M,)."""
        varies: NDArray[np.bool_] = self.codes.max(0) > self.codes.min(0)
        return varies

    def factor(self, latent: int) -> int | None:
        """The factor that a latent is named after, by the rule of `fqvae.figures.naming`."""
        return named_factor(self.nmi[:, latent]) if self.varies[latent] else None

    def label(self, latent: int) -> str:
        """That factor's name, or what else is to say of the latent: "" if images have no labels."""
        factor = self.factor(latent)
        if factor is not None:
            return self.factors[factor]
        if not self.varies[latent]:
            return "not used"
        return NONE if self.factors else ""

    @property
    def order(self) -> list[int]:
        """The latents by the factor that they are named after, those that never change last."""
        return sorted(range(self.codes.shape[1]), key=self._rank)

    def _rank(self, latent: int) -> tuple[bool, bool, int, float]:
        factor = self.factor(latent)
        best = 0.0 if factor is None else float(self.nmi[factor, latent])
        return (not self.varies[latent], factor is None, factor or 0, -best)


def draw_sample(run: Run, samples: int, seed: int, nmi: NDArray[np.float64] | None, progress: bool) -> Sample:
    """Encode held-out images.

    nmi: (F, M), less what independent codes have, from an evaluation; None: estimated here, from the sample.

    Raises ValueError for a model that has no codes: none of its latents changes with the image, or they are
    not finite.
    """
    encoded = encode(run, held_out(run.dataset, samples, seed), progress=progress)
    codes = encoded.codes
    if not (np.isfinite(codes).all() and np.isfinite(encoded.error)):
        raise ValueError(f"{run.checkpoint}: codes or reconstructions of the model are not finite")
    if (codes == codes[0]).all():
        raise ValueError(
            f"{run.checkpoint}: the model has no codes: each of its {codes.shape[1]} latents has the same "
            f"value for all of {samples} held-out images, so that there is nothing to report"
        )
    if nmi is None:
        nmi = _shares(encoded.factors, codes, run.discrete)
    values = usage = used = None
    if run.discrete:
        usage, values = code_usage(codes, run.config.model.latent.codebook_size), code_values(run)
        used = used_codes(usage.counts, values)
    factors = tuple(map(readable, run.dataset.factor_names))
    return Sample(encoded.index, codes, values, usage, used, nmi, factors)


def _shares(factors: NDArray[np.int64], codes: Codes, discrete: bool) -> NDArray[np.float64]:
    """I(factor; latent) / H(factor), (F, M), less what independent codes have; 0 for constant factors."""
    if not factors.shape[1]:
        return np.zeros((0, codes.shape[1]))
    table = codes.astype(np.int64) if discrete else binned(codes, _BINS)
    information, entropy = discrete_information(factors, table), entropies(factors)[:, None]
    shares = np.zeros_like(information)
    np.divide(information, entropy, out=shares, where=entropy > 0)
    values, used = ([len(np.unique(each)) for each in columns.T] for columns in (factors, table))
    return beyond_chance(shares, chance_share(np.array(values), np.array(used), len(table)))


def value_text(sample: Sample, latent: int, code: int | float) -> str:
    """A code as a person reads it: its value, or its index where it has none."""
    if sample.used is not None and sample.values is None:
        return f"code {code}"
    value = float(code)
    if sample.values is not None:
        value = float((sample.values if sample.values.ndim == 1 else sample.values[latent])[int(code)])
    return two_decimals(value)
