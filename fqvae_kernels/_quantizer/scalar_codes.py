"""How a `ScalarQuantizer` takes its codes: drawn, or the nearest; in one pass, or in one for each size."""

from __future__ import annotations

from torch import Tensor

from fqvae_kernels import _arguments
from fqvae_kernels._call import ESTIMATORS, SAMPLING_ESTIMATORS
from fqvae_kernels._quantizer.arrangement import Arranged
from fqvae_kernels._quantizer.entropy import entropy_term
from fqvae_kernels._quantizer.estimating import Estimating
from fqvae_kernels._quantizer.estimator import Taken, check_unused, draw_codes, nearest_codes
from fqvae_kernels._quantizer.level_passes import LevelPasses
from fqvae_kernels._quantizer.losses import compute_dtype
from fqvae_kernels._quantizer.rows import first_row


class OnePass:
    """What a pass computes where all codebooks have one size; `LevelPasses` has it where they differ."""

    draw = staticmethod(draw_codes)
    nearest = staticmethod(nearest_codes)
    entropy = staticmethod(entropy_term)


Passes = type[OnePass] | LevelPasses


class ScalarCodes(Arranged, Estimating):
    """The part of a `ScalarQuantizer` that takes codes."""

    kl_weight: float
    entropy_weight: float

    def _take(
        self,
        passes: Passes,
        z: Tensor,
        codebook: Tensor,
        temperature: float | Tensor | None,
        seed: int | Tensor | None,
        row_offset: int | None,
        return_weights: bool,
        return_kl: bool | None,
        masked: bool,
    ) -> Taken:
        """Codes for z by the estimator, or in eval() the nearest ones."""
        draws = self.training and self.estimator in SAMPLING_ESTIMATORS
        wants_kl = draws if return_kl is None else return_kl
        # An if, since torch.compile makes of the comparison itself a symbol that is no index.
        if self.kl_weight != 0 or self.entropy_weight != 0:
            wants_kl = True
        factor = None
        # The nearest code is the same at every precision.
        if (draws or wants_kl) and isinstance(z, Tensor):
            factor = self._distance_factor(compute_dtype(z))
        if not draws:
            if self.training:  # the attribute may have been set since
                _arguments.check_estimator(self.estimator, ESTIMATORS)
            alone = not masked and self.levels is None
            tally = (lambda: self._usage.tally(z, self._counted_latents(z))) if alone else None
            taken = passes.nearest(
                z,
                codebook,
                factor,
                return_weights=return_weights,
                return_kl=wants_kl,
                backend=self.backend,
                tally=tally,
            )
            check_unused(z, temperature, seed, row_offset)
            return taken
        return passes.draw(
            z,
            codebook,
            factor,
            estimator=self.estimator,
            temperature=self.temperature if temperature is None else temperature,
            hard=self.hard,
            seed=seed,
            row_offset=first_row() if row_offset is None else row_offset,
            return_weights=return_weights,
            return_kl=wants_kl,
            backend=self.backend,
        )

    def _entropy(self, passes: Passes, z: Tensor, codebook: Tensor, taken: Taken, counted: Tensor) -> Tensor:
        """The entropy term of the loss, over the rows that are counted."""
        assert taken.kl is not None
        factor = self._distance_factor(compute_dtype(z))
        return passes.entropy(z, codebook, factor, taken.kl, counted, self._latents(taken.indices))
