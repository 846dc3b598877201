"""`ScalarQuantizer`: a codebook with its losses and statistics, as a module."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from fqvae_kernels import _arguments, _operators, backends
from fqvae_kernels.functional import gumbel_quantize, nearest_quantize

_ESTIMATORS = ("gumbel", "straight_through", "reinmax", "nearest")
_LATER_ESTIMATORS = ("straight_through", "reinmax")
_INITS = ("normal", "uniform", "linspace")


@dataclasses.dataclass(eq=False)
class QuantizerOutput:
    """What a `ScalarQuantizer` returns. Unpacks as `quantized, indices, loss`.

    quantized: shape and dtype of z. indices: shape of z, int64. loss: 0-d, compute dtype (float64 for float64
    z, else float32). kl: shape of z, compute dtype, nats; None where the estimator has no use for it.
    weights: (*z.shape, K) in the dtype of z, or None if not asked for.
    """

    quantized: Tensor
    indices: Tensor
    loss: Tensor
    kl: Tensor | None = None
    weights: Tensor | None = None

    def __iter__(self) -> Iterator[Tensor]:
        return iter((self.quantized, self.indices, self.loss))


class ScalarQuantizer(torch.nn.Module):
    """Quantize every scalar of z to one of `codebook_size` learned values.

    Called as `q(z, *, temperature=None, return_weights=False)` it returns a `QuantizerOutput`. With one
    codebook z may have any shape; with `num_codebooks` = L > 1, one for each latent, z has shape (..., L).

    In training the estimator decides. "gumbel" samples by Gumbel-Softmax (`gumbel_quantize`). "nearest" takes
    the nearest code, its gradient going straight through to z, so that the codebook learns from
    `codebook_weight` or `kl_weight` only. ("straight_through" and "reinmax" are not in this release.) In
    `eval()` every estimator takes the nearest code: nothing is drawn, and weights are one-hot.

    The loss is

        kl_weight * mean(kl) + commitment_weight * mean((sg[quantized] - z)**2)
        + codebook_weight * mean((codebook[indices] - sg[z])**2)

    where sg stops the gradient and kl is KL(posterior || uniform) of `gumbel_quantize`, which depends on z
    and codebook but on no sample. Under the estimator "nearest" it means the same, but costs a Gumbel pass of
    its own, so there kl is None unless kl_weight is not 0.

    `usage` counts how often each code was taken at each position of z's last dimension ("latent"), in
    training and in eval(), since the last `reset_usage()`. A z of fewer than two dimensions under a single
    codebook counts as one latent, and the table grows when a longer last dimension comes. Calls within
    transforms of torch.func are not counted. It is a running statistic, no part of `state_dict`, and not
    broadcast by DistributedDataParallel: each rank counts its own, and reading sums over ranks.

    Args:
        codebook_size: K, at least 1.
        num_codebooks: 1, a `codebook` of shape (K,); or L > 1, of shape (L, K).
        estimator: "gumbel" or "nearest".
        hard: straight-through Gumbel-Softmax, for the estimator "gumbel".
        temperature: of the estimator "gumbel" when the call gives none. A float; a 0-d tensor becomes a
            buffer and a Parameter is learned.
        kl_weight, commitment_weight, codebook_weight: of the loss, finite and at least 0.
        init: "normal", N(0, 1); "uniform", on [-1/2, 1/2]; "linspace", evenly from -1/2 to 1/2; or a tensor
            of values, (K,) or the codebook's shape.
        backend: as for `gumbel_quantize`.

    Raises:
        TypeError, ValueError: an argument of the wrong type, shape or value.
        NotImplementedError: an estimator that this release does not have.
    """

    codebook: torch.nn.Parameter
    temperature: float | Tensor

    def __init__(
        self,
        codebook_size: int = 64,
        *,
        num_codebooks: int = 1,
        estimator: str = "gumbel",
        hard: bool = False,
        temperature: float | Tensor = 1.0,
        kl_weight: float = 0.0,
        commitment_weight: float = 0.0,
        codebook_weight: float = 0.0,
        init: str | Tensor = "normal",
        backend: str | None = None,
    ) -> None:
        super().__init__()
        self.codebook_size = _arguments.check_count("codebook_size", codebook_size, 1)
        self.num_codebooks = _arguments.check_count("num_codebooks", num_codebooks, 1)
        if estimator not in _ESTIMATORS:
            raise ValueError(
                f"estimator must be one of {', '.join(map(repr, _ESTIMATORS))}, but was {estimator!r}"
            )
        if estimator in _LATER_ESTIMATORS:
            raise NotImplementedError(
                f"estimator {estimator!r} is not in this release; 'gumbel' and 'nearest' are"
            )
        self.estimator = estimator
        _arguments.check_flag("hard", hard)
        self.hard = hard
        self.kl_weight = _check_weight("kl_weight", kl_weight)
        self.commitment_weight = _check_weight("commitment_weight", commitment_weight)
        self.codebook_weight = _check_weight("codebook_weight", codebook_weight)
        if backend is not None and backend not in backends.NAMES:
            names = ", ".join(map(repr, backends.NAMES))
            raise ValueError(f"backend must be None or one of {names}, but was {backend!r}")
        self.backend = backend
        self._set_temperature(temperature)
        several = self.num_codebooks > 1
        shape = (self.num_codebooks, self.codebook_size) if several else (self.codebook_size,)
        self.init = _check_init(init, shape)
        self.codebook = torch.nn.Parameter(torch.empty(shape))
        self.reset_parameters()
        # Not a registered buffer: DistributedDataParallel would overwrite every rank's counts by those of
        # rank 0.
        self._counts = torch.zeros(
            (self.num_codebooks if several else 0, self.codebook_size), dtype=torch.int64
        )

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Set the codebook as `init` says."""
        if isinstance(self.init, Tensor):
            self.codebook.copy_(self.init)
        elif self.init == "normal":
            self.codebook.normal_()
        elif self.init == "uniform":
            self.codebook.uniform_(-0.5, 0.5)
        else:
            self.codebook.copy_(torch.linspace(-0.5, 0.5, self.codebook_size))

    def forward(
        self, z: Tensor, *, temperature: float | Tensor | None = None, return_weights: bool = False
    ) -> QuantizerOutput:
        """Quantize z, count the codes, and add up the loss.

        z: float16, bfloat16, float32 or float64; any shape, or (..., num_codebooks) if there are several.
        temperature: overrides the module's for this call.
        """
        kl: Tensor | None
        weights: Tensor | None
        if self.training and self.estimator == "gumbel":
            quantized, indices, kl, weights = gumbel_quantize(
                z,
                self.codebook,
                temperature=self.temperature if temperature is None else temperature,
                hard=self.hard,
                return_weights=return_weights,
                backend=self.backend,
            )
        else:
            quantized, indices = nearest_quantize(z, self.codebook, backend=self.backend)
            kl = weights = None
            if self.estimator != "nearest" or self.kl_weight != 0:
                # No sample enters kl, so any seed will do, and none is taken from the generator.
                kl = gumbel_quantize(z, self.codebook, seed=0, backend=self.backend).kl
            if return_weights:
                weights = _one_hot(indices, quantized, self.codebook_size)
        self._count(indices)
        return QuantizerOutput(quantized, indices, self._loss(z, quantized, indices, kl), kl, weights)

    def codes(self, indices: Tensor) -> Tensor:
        """The code at each index, differentiable in the codebook.

        indices: int64 in [0, K), any shape, or (..., num_codebooks) if there are several. Returns the same
        shape in the codebook's dtype. Raises TypeError and ValueError for another dtype or shape.
        """
        if not isinstance(indices, Tensor) or indices.dtype != torch.int64:
            was = indices.dtype if isinstance(indices, Tensor) else type(indices).__name__
            raise TypeError(f"indices must be a torch.int64 tensor, but was {was}")
        if self.num_codebooks == 1:
            return self.codebook.index_select(0, indices.reshape(-1)).reshape(indices.shape)
        if indices.dim() == 0 or indices.shape[-1] != self.num_codebooks:
            raise ValueError(
                f"indices must have shape (..., {self.num_codebooks}), but had shape {tuple(indices.shape)}"
            )
        columns = indices.reshape(-1, self.num_codebooks)
        return self.codebook.gather(1, columns.T).T.reshape(indices.shape)

    @property
    def usage(self) -> Tensor:
        """Counts (latents, K), int64, since the last reset; (0, K) before the first call with a single
        codebook.

        Where torch.distributed is initialised it is the sum over all ranks: a collective call, which every
        rank must make, after each of them has quantized something.
        """
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return self._counts
        total = self._counts.clone()
        torch.distributed.all_reduce(total)
        return total

    def reset_usage(self) -> None:
        """Start counting anew."""
        self._counts.zero_()

    def perplexity(self) -> Tensor:
        """exp of the entropy of each latent's `usage`, (latents,), float32: K if all codes are used alike, 1
        if one is.

        A latent without counts has 0. A collective call under torch.distributed, as `usage` is.
        """
        counts = self.usage.double()
        total = counts.sum(-1)
        share = counts / total.clamp(min=1).unsqueeze(-1)
        return torch.where(total > 0, torch.special.entr(share).sum(-1).exp(), 0).float()

    def extra_repr(self) -> str:
        """The settings that matter, those at their default left out."""
        parts = [str(self.codebook_size), f"estimator={self.estimator!r}"]
        if self.num_codebooks > 1:
            parts.insert(1, f"num_codebooks={self.num_codebooks}")
        if self.hard:
            parts.append("hard=True")
        if not isinstance(self.temperature, Tensor):
            parts.append(f"temperature={self.temperature:g}")
        for name in ("kl_weight", "commitment_weight", "codebook_weight"):
            weight = getattr(self, name)
            if weight != 0:
                parts.append(f"{name}={weight:g}")
        if self.backend is not None:
            parts.append(f"backend={self.backend!r}")
        return ", ".join(parts)

    def _set_temperature(self, temperature: float | Tensor) -> None:
        if not isinstance(temperature, Tensor):
            self.temperature = _arguments.check_temperature(temperature, torch.device("cpu"))
            return
        _arguments.check_temperature(temperature, temperature.device)
        if isinstance(temperature, torch.nn.Parameter):
            self.temperature = temperature
        else:
            self.register_buffer("temperature", temperature)

    def _loss(self, z: Tensor, quantized: Tensor, indices: Tensor, kl: Tensor | None) -> Tensor:
        """The three terms; those of weight 0 cost nothing."""
        dtype = torch.float64 if z.dtype == torch.float64 else torch.float32
        loss = torch.zeros((), dtype=dtype, device=z.device)
        if self.kl_weight != 0 and kl is not None:
            loss = loss + self.kl_weight * kl.mean()
        if self.commitment_weight != 0:
            gap = quantized.detach().to(dtype) - z.to(dtype)
            loss = loss + self.commitment_weight * gap.square().mean()
        if self.codebook_weight != 0:
            gap = self.codes(indices).to(dtype) - z.detach().to(dtype)
            loss = loss + self.codebook_weight * gap.square().mean()
        return loss

    @torch.no_grad()
    def _count(self, indices: Tensor) -> None:
        """Add indices to the usage."""
        # A transform of torch.func forbids writing to what it captures.
        if _operators.in_transform():
            return
        latents = indices.shape[-1] if indices.dim() >= 2 or self.num_codebooks > 1 else 1
        known = self._counts
        # What a compiled program allocates in inference mode cannot be counted in outside it.
        stale = (
            not torch.compiler.is_compiling()
            and known.is_inference()
            and not torch.is_inference_mode_enabled()
        )
        if known.shape[0] < latents or known.device != indices.device or stale:
            self._grow_counts(latents, indices.device)
        codes = self.codebook_size
        first = torch.arange(latents, device=indices.device) * codes
        places = (indices.reshape(-1, latents) + first).reshape(-1)
        one = torch.ones((), dtype=torch.int64, device=indices.device)
        self._counts.view(-1).scatter_add_(0, places, one.expand_as(places))

    def _grow_counts(self, latents: int, device: torch.device) -> None:
        """Give the counts at least this many rows, on this device."""
        known = self._counts
        with torch.inference_mode(False):
            counts = torch.zeros(
                (max(latents, known.shape[0]), self.codebook_size), dtype=torch.int64, device=device
            )
            if known.device.type != "meta":
                counts[: known.shape[0]] = known.to(device)
        self._counts = counts


def _one_hot(indices: Tensor, quantized: Tensor, codes: int) -> Tensor:
    """(*indices.shape, codes) in quantized's dtype, NaN in the rows where quantized is."""
    hot = indices.unsqueeze(-1) == torch.arange(codes, device=indices.device)
    return torch.where(quantized.isnan().unsqueeze(-1), math.nan, hot.to(quantized.dtype))


def _check_weight(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a float, but was {value!r} ({type(value).__name__})")
    if not 0 <= value < math.inf:
        raise ValueError(f"{name} must be finite and at least 0, but was {value}")
    return float(value)


def _check_init(init: str | Tensor, shape: tuple[int, ...]) -> str | Tensor:
    if isinstance(init, Tensor):
        if init.shape not in (shape, shape[-1:]) or not init.is_floating_point():
            raise ValueError(
                f"init as a tensor must be floating point of shape {shape} or {shape[-1:]}, but "
                f"was {init.dtype} of shape {tuple(init.shape)}"
            )
        if not init.isfinite().all():
            raise ValueError("init as a tensor must be finite, but holds NaN or infinity")
        return init.detach().clone()
    if init not in _INITS:
        raise ValueError(f"init must be a tensor or one of {', '.join(map(repr, _INITS))}, but was {init!r}")
    return init
