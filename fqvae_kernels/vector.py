"""`GumbelVectorQuantizer`: vectors drawn by Gumbel-Softmax, with their losses and statistics."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fqvae_kernels import _arguments, _vectors
from fqvae_kernels._draws import lies_as
from fqvae_kernels._quantizer import masks, vector_codes
from fqvae_kernels._quantizer.checks import check_float
from fqvae_kernels._quantizer.counted import Counted
from fqvae_kernels._quantizer.estimating import Estimating
from fqvae_kernels._quantizer.estimator import Taken, check_unused
from fqvae_kernels._quantizer.losses import total_loss
from fqvae_kernels._quantizer.output import QuantizerOutput
from fqvae_kernels._quantizer.representation import settings
from fqvae_kernels._quantizer.rows import first_row
from fqvae_kernels._quantizer.schedule import TemperatureSchedule
from fqvae_kernels._tensors import empty_whole, put, whole
from fqvae_kernels.functional import gumbel_quantize_logits

__all__ = ["GumbelVectorQuantizer"]

# What the representation shows, each with its default.
_SETTINGS = {
    "num_codebooks": 1,
    **dict.fromkeys(("estimator", "temperature")),
    "learn_temperature": False,
    "hard": True,
    **dict.fromkeys(("diversity_weight", "kl_weight"), 0.0),
    "backend": None,
}


class GumbelVectorQuantizer(Counted, Estimating):
    """Quantize every position of x to vectors that its own logits choose: the quantizer of wav2vec 2.0.

    A linear projection makes the logits of G codebooks with K vectors each from x (..., dim). From each
    codebook one vector of code_dim / G values is drawn by `gumbel_quantize_logits`, and those of a position
    are joined to code_dim values (Baevski et al., NeurIPS 2020). Without a projection, dim=None, x is the
    logits, (..., G * K): the quantizer of a discrete VAE (Ramesh et al., ICML 2021), whose -inf masks codes.

    Called as `q(x, *, temperature=None, mask=None, seed=None, row_offset=None, return_weights=False,
    return_kl=None)` it returns a `QuantizerOutput`, which unpacks as `quantized, indices, loss`. In `eval()`
    it takes the code of the largest logit, the lowest index on a tie: nothing is drawn, and the logits get a
    gradient from the losses only.

    The loss is

        diversity_weight * (G K - sum over g of exp(H(p_g))) / (G K)  +  kl_weight * mean(kl)

    with p_g the mean over the batch of softmax(logits of codebook g), without noise and temperature, H its
    entropy in nats, and kl = KL(softmax(logits) || uniform) of each row. The means are over the rows that are
    finite and not masked; without any the loss is 0. Under torch.distributed they are of each rank's own
    batch. `QuantizerOutput.losses` has the terms by name: "diversity", "kl".

    Parameters: `embedding`, (G, K, code_dim / G), starts uniform on [0, 1]; `projection`, a torch.nn.Linear,
    with weights from N(0, 1) and a bias of 0, as wav2vec 2.0 has them. `usage` counts the codes of each
    codebook and `perplexity()` reads it, as those of `ScalarQuantizer` do.

    Args:
        dim: the values of x at a position; None where x is the logits.
        codebook_size: K, at least 1.
        code_dim: the values of quantized at a position, a multiple of num_codebooks.
        num_codebooks: G, at least 1: the groups of wav2vec 2.0.
        temperature: of the draws when the call gives none. A float; a 0-d tensor, which becomes a buffer; or
            a `TemperatureSchedule`, which wav2vec 2.0 has as TemperatureSchedule(2.0, 0.5, decay=0.999995).
        learn_temperature: learn it through its logarithm, as for `ScalarQuantizer`: `log_temperature`.
        estimator: "gumbel", "straight_through" or "reinmax", as for `gumbel_quantize_logits`.
        hard: of "gumbel": quantized is a vector of the embedding. False: their mean under the soft weights.
        diversity_weight, kl_weight: of the loss, finite and at least 0.
        backend: as for `gumbel_quantize`.

    Raises:
        TypeError, ValueError: an argument of the wrong type, shape or value, which the message names.
    """

    def __init__(
        self,
        dim: int | None,
        codebook_size: int,
        code_dim: int,
        *,
        num_codebooks: int = 1,
        temperature: float | Tensor | TemperatureSchedule = 1.0,
        learn_temperature: bool = False,
        estimator: str = "gumbel",
        hard: bool = True,
        diversity_weight: float = 0.0,
        kl_weight: float = 0.0,
        backend: str | None = None,
    ) -> None:
        super().__init__(num_codebooks, codebook_size)
        self.dim = None if dim is None else _arguments.check_count("dim", dim, 1)
        self.code_dim = _arguments.check_count("code_dim", code_dim, 1)
        if self.code_dim % self.num_codebooks:
            raise ValueError(
                f"code_dim must be a multiple of num_codebooks ({self.num_codebooks}), whose vectors are "
                f"joined, but was {self.code_dim}"
            )
        self._set_estimator(estimator, hard, temperature, learn_temperature, backend)
        self.diversity_weight = check_float("diversity_weight", diversity_weight)
        self.kl_weight = check_float("kl_weight", kl_weight)
        logits = self.num_codebooks * self.codebook_size
        self.projection = None if self.dim is None else torch.nn.Linear(self.dim, logits)
        values = self.code_dim // self.num_codebooks
        self.embedding = torch.nn.Parameter(torch.empty(self.num_codebooks, self.codebook_size, values))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw embedding and projection anew, and start a learned temperature as it was given.

        Where FSDP2 has sharded the parameters it is a collective call, and all ranks get what rank 0 draws.
        """
        put(empty_whole(self.embedding).uniform_(), self.embedding)
        if self.projection is not None:
            put(empty_whole(self.projection.weight).normal_(), self.projection.weight)
            self.projection.bias.zero_()
        self._reset_temperature()

    def forward(
        self,
        x: Tensor,
        *,
        temperature: float | Tensor | None = None,
        mask: Tensor | None = None,
        seed: int | Tensor | None = None,
        row_offset: int | None = None,
        return_weights: bool = False,
        return_kl: bool | None = None,
    ) -> QuantizerOutput:
        """Quantize x, count the codes, and add up the loss.

        Args:
            x: (..., dim), or logits (..., G * K) where dim is None; float16, bfloat16, float32 or float64, in
                the dtype that the projection takes. A position that holds NaN or infinity is NaN in
                quantized, weights and kl, has indices in [0, K) and gets no gradient; of logits, only the
                codebook whose logits hold NaN or +inf.
            temperature: overrides the module's for this call.
            mask: bool, x.shape[:-1], on x's device: True where the position counts. Elsewhere quantized,
                weights and kl are 0 and indices -1; x may be anything there, gets no gradient, and enters no
                loss and no count. The other positions draw what they draw without a mask.
            seed, row_offset: of the noise, as for `gumbel_quantize`; a position has G rows, one after the
                other. In eval() they change nothing. A row_offset of None is rank * 2**40 where
                torch.distributed is initialised, so that ranks draw rows of their own, else 0.
            return_weights: return the weights as well, one-hot unless soft.
            return_kl: return the KL. None: where kl_weight is not 0. It changes no loss.

        Returns:
            QuantizerOutput: quantized (..., code_dim) in the logits' dtype, indices (..., G) int64, loss 0-d;
            kl (..., G) and weights (..., G, K), or None.

        Raises:
            TypeError, ValueError, RuntimeError: as `gumbel_quantize_logits`; for a mask that does not fit.
        """
        _arguments.check_flag("return_weights", return_weights)
        if return_kl is not None:
            _arguments.check_flag("return_kl", return_kl)
        self._check_input(x, mask)
        given = x
        usable, projection = mask, self.projection
        if projection is not None:
            finite = x.isfinite().all(-1)
            usable = finite if mask is None else finite & mask
        if usable is not None:
            # Else 0 * NaN would reach the weights of the projection.
            x = torch.where(usable.unsqueeze(-1), x, 0)
        flat = x if projection is None else projection(x)
        logits = lies_as(flat.unflatten(-1, (self.num_codebooks, self.codebook_size)), given, -1)
        wants_kl = self.kl_weight != 0 or bool(return_kl)
        row_offset = first_row() if row_offset is None else row_offset
        taken = self._take(logits, temperature, seed, row_offset, return_weights, wants_kl)
        if usable is not None:
            taken = _filled(taken, ~usable, math.nan)
        counted = ~taken.quantized.select(-1, 0).isnan()
        if mask is not None:
            # Not by _replace, which torch.compile of PyTorch 2.8 cannot follow.
            quantized, indices, kl, weights, _ = _filled(taken, ~mask, 0)
            taken = Taken(quantized, indices.masked_fill(~mask.unsqueeze(-1), -1), kl, weights)
        self._usage.count(taken.indices, self.num_codebooks, mask is not None)
        losses: dict[str, Tensor] = {}
        if self.diversity_weight != 0:
            losses["diversity"] = self.diversity_weight * vector_codes.diversity(logits, counted)
        if self.kl_weight != 0:
            assert taken.kl is not None
            losses["kl"] = self.kl_weight * vector_codes.mean_kl(taken.kl, counted)
        return QuantizerOutput(
            taken.quantized.flatten(-2),
            taken.indices,
            total_loss(losses, logits),
            None if return_kl is False else taken.kl,
            taken.weights,
            losses,
        )

    def codes(self, indices: Tensor) -> Tensor:
        """The vectors of each position's indices, joined, differentiable in the embedding.

        indices: int32 or int64, (..., num_codebooks), in [0, K), or -1, which gives 0. Returns (...,
        code_dim) in the embedding's dtype. Raises TypeError and ValueError for another dtype, shape or value.
        """
        self._check_indices(indices)
        rows = _vectors.rows_at(whole(self.embedding), indices.long().clamp(min=0))
        return rows.masked_fill((indices < 0).unsqueeze(-1), 0).flatten(-2)

    def extra_repr(self) -> str:
        """The settings that matter, those at their default left out."""
        sizes = f"{self.dim}, {self.codebook_size}, {self.code_dim}"
        return ", ".join([sizes, *settings(self, _SETTINGS)])

    def _take(
        self,
        logits: Tensor,
        temperature: float | Tensor | None,
        seed: int | Tensor | None,
        row_offset: int,
        return_weights: bool,
        return_kl: bool,
    ) -> Taken:
        """Codes for logits (..., G, K) by the estimator, or in eval() the most probable ones."""
        if not self.training:
            check_unused(logits, temperature, seed, row_offset)
            return vector_codes.best_codes(
                logits,
                self.embedding,
                return_weights=return_weights,
                return_kl=return_kl,
                backend=self.backend,
            )
        drawn = gumbel_quantize_logits(
            logits,
            embedding=self.embedding,
            temperature=self.temperature if temperature is None else temperature,
            hard=self.hard and self.estimator == "gumbel",
            seed=seed,
            row_offset=row_offset,
            return_weights=return_weights,
            return_kl=return_kl,
            estimator=self.estimator,
            backend=self.backend,
        )
        return Taken(*drawn)

    def _check_input(self, x: Tensor, mask: Tensor | None) -> None:
        _arguments.check_floating("x", x)
        logits = f"{self.num_codebooks} * {self.codebook_size}"
        wanted = self.num_codebooks * self.codebook_size if self.dim is None else self.dim
        if x.dim() == 0 or x.shape[-1] != wanted:
            what = f"logits (..., {logits})" if self.dim is None else f"(..., {wanted}) by dim"
            raise ValueError(f"x must have shape {what}, but had shape {tuple(x.shape)}")
        if mask is not None and masks.check_bools(mask, x.device, "x").shape != x.shape[:-1]:
            raise ValueError(
                f"mask must have the shape of x's positions {tuple(x.shape[:-1])}, but had shape "
                f"{tuple(mask.shape)}"
            )


def _filled(taken: Taken, where: Tensor, value: float) -> Taken:
    """The value at whole positions, where (...) is True, without a gradient."""
    place = where.unsqueeze(-1)
    kl, weights = taken.kl, taken.weights
    return Taken(
        taken.quantized.masked_fill(place.unsqueeze(-1), value),
        taken.indices,
        None if kl is None else kl.masked_fill(place, value),
        None if weights is None else weights.masked_fill(place.unsqueeze(-1), value),
    )
