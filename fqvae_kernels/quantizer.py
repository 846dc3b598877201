"""`ScalarQuantizer`: a codebook with its losses and statistics. `_quantizer` holds its parts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fqvae_kernels import _arguments
from fqvae_kernels._call import ESTIMATORS
from fqvae_kernels._draws import lies_as
from fqvae_kernels._quantizer import masks
from fqvae_kernels._quantizer.capture import happens_once, is_repeated, warn_left_out
from fqvae_kernels._quantizer.checks import check_float
from fqvae_kernels._quantizer.codebook import codes_at
from fqvae_kernels._quantizer.level_passes import LevelPasses
from fqvae_kernels._quantizer.levels import check_sizes
from fqvae_kernels._quantizer.losses import total_loss, weighted_losses
from fqvae_kernels._quantizer.output import QuantizerOutput
from fqvae_kernels._quantizer.representation import settings
from fqvae_kernels._quantizer.revival import make_revival
from fqvae_kernels._quantizer.scalar_codes import OnePass, Passes, ScalarCodes
from fqvae_kernels._quantizer.schedule import TemperatureSchedule
from fqvae_kernels._quantizer.usage import UsageCounter, code_perplexity

__all__ = ["QuantizerOutput", "ScalarQuantizer", "TemperatureSchedule", "UsageCounter", "code_perplexity"]

# What the representation shows, each with its default.
_SETTINGS = {
    "estimator": None,
    **dict.fromkeys(("hard", "sorted", "learn_precision", "learn_temperature"), False),
    "temperature": None,
    **dict.fromkeys(("precision", "init_scale"), 1.0),
    **dict.fromkeys(("kl_weight", "commitment_weight", "codebook_weight", "entropy_weight"), 0.0),
    **dict.fromkeys(("channel_first", "backend")),
}


class ScalarQuantizer(ScalarCodes):
    """Quantize every scalar of z to one of `codebook_size` learned values.

    Called as `q(z, *, temperature=None, mask=None, seed=None, row_offset=None, return_weights=False,
    return_kl=None)` it returns a `QuantizerOutput`, which unpacks as `quantized, indices, loss`. With one
    codebook z may have any shape; with `num_codebooks` = L > 1, one for each latent, z has shape (..., L).
    `codes` gives the codes at indices; `to_tokens` makes one integer of the indices of a position, and
    `from_tokens` the indices again.

    In training the estimator decides how a code is taken and which gradient z and the codes get:

        "gumbel"            Gumbel-Softmax (Jang et al., Maddison et al., ICLR 2017): the mean of the codes
                            under noisy weights, or with `hard` the code of the largest weight
        "straight_through"  a code drawn from the posterior, its gradient that of
                            softmax(logits / temperature) (Bengio et al., 2013)
        "reinmax"           the same code, its gradient right to second order at temperature 1, and wrong
                            below (Liu et al., NeurIPS 2023)
        "nearest"           the nearest code, its gradient going straight through to z, so that the codebook
                            learns from the terms of the loss only: `codebook_weight`, `kl_weight`,
                            `entropy_weight` (van den Oord et al., 2017). To reconstruct well, start with
                            codebook_weight=1, commitment_weight=0.25 and revive_after=10

    In `eval()` every estimator takes the nearest code: nothing is drawn, weights are one-hot, and no KL is
    computed unless `kl_weight` or `entropy_weight` is not 0 or the call says return_kl=True. What
    torch.export and torch.onnx.export(dynamo=True) make of it then holds PyTorch's own operators alone,
    unless `backend` is named: it runs in ONNX Runtime, and where this package is not installed.

    The loss is

        kl_weight * mean(kl) + commitment_weight * mean((sg[quantized] - z)**2)
        + codebook_weight * mean((codebook[indices] - sg[z])**2)
        + entropy_weight * (mean(H(q)) - H(mean(q)))

    where sg stops the gradient and kl is KL(posterior || uniform) of `gumbel_quantize`, which depends on z
    and codebook but on no sample. q is that posterior and H its entropy in nats: the last term makes each
    posterior sharp and spreads a latent's rows over its codes (the entropy loss of lookup-free quantization,
    Yu et al., arXiv 2310.05737). Its mean(q) is over each latent's rows in this process's batch. Plain
    PyTorch computes it, a chunk of rows at a time, or all at once under torch.compile and torch.func.

    The means are over the rows that are finite and not masked: one whose z is NaN or infinite enters no term,
    and without any other the loss is 0. `QuantizerOutput.losses` has each term by name.

    Distances are precision * (z - code)**2. Precision decides how many bits a scalar can carry, which
    `capacity()` computes: 1.87 for K = 64 codes from N(0, 1) at precision 1, whatever the temperature is.

    Where torch.distributed is initialised ranks draw other noise even if their seeds are the same: each its
    own rows, from rank * 2**40. A row_offset that a call gives is taken as it is: with rank * (the number of
    z's scalars) and one seed the ranks draw together what one process draws for the whole batch, and with 0
    ranks that hold the same rows, as in tensor parallelism, draw the same. In a program of torch.compile or
    torch.export the rank is a constant.

    `usage` counts how often each code was taken for each latent, which is a position of z's last dimension,
    or of dimension 1 with channel_first, in training and in eval(), since the last `reset_usage()`. The table
    grows when more latents come. Under a single codebook a z of fewer than two dimensions counts as one
    latent; so does one of four or more if channel_first is not said, since the last dimension of an image is
    usually its width, and one with so many values there that the table would have more than 2**22 counts. A
    forward pass that checkpointing repeats within a backward pass counts once. Counting is part of no program
    that is captured: calls under torch.compile, torch.export, torch.jit.trace, make_fx, FakeTensorMode,
    torch.func and the capture of CUDA graphs are not counted; `count_usage(indices)` counts what such a
    program returned. Usage is a running statistic, no part of `state_dict`, and not broadcast by
    DistributedDataParallel: each rank counts its own, and reading sums over ranks.

    Args:
        codebook_size: K, at least 1; 64 if not given.
        num_codebooks: 1, a `codebook` of shape (K,); or L > 1, of shape (L, K). 1 if not given.
        levels: in place of codebook_size and num_codebooks: how many codes each latent has, such as
            [8, 5, 5, 5]. Each latent is quantized as by a codebook of that size, by a pass for each size.
            `codebook` is (L, K) with the largest K; so are usage and the last dimension of weights, with 0
            beyond a latent's level, where `codebook` means nothing. One level is a single codebook.
        estimator: "gumbel", "straight_through", "reinmax" or "nearest".
        hard: straight-through Gumbel-Softmax, for the estimator "gumbel"; no other one changes by it.
        temperature: of the estimators that draw, when the call gives none. A float; a 0-d tensor, which
            becomes a buffer; or a `TemperatureSchedule`.
        learn_temperature: learn it through its logarithm: the parameter `log_temperature`, which starts at
            the logarithm of `temperature`. `temperature` then reads as its exponential, which has a gradient
            and is never 0 or negative. Where the logarithm leaves [-87, 87] the temperature stays at e**-87
            or e**87 and has no gradient. A Parameter as `temperature` means the same; it gives the start and
            is not itself kept.
        kl_weight, commitment_weight, codebook_weight, entropy_weight: of the loss, finite and at least 0.
        init: "normal", N(0, 1); "uniform", on [-1/2, 1/2]; "linspace", evenly from -1/2 to 1/2; a tensor of
            values, (K,) or the codebook's shape; or "data", N(0, 1) until the first call in training sets
            code k to the quantile (k + 1/2) / K of that batch, as `init_from` does. A codebook whose
            quantiles are all the same waits for the next batch. Codes closer together than about
            1 / sqrt(precision) are all as likely to be drawn, so where z spreads less this suits "nearest"
            alone. `state_dict` says what has started (`data_start.done`), so a model that is loaded does not
            start again. Ranks must make these calls together. A program of torch.compile or another capture
            changes no codes: call the module eagerly before, or `init_from(z)`.
        init_scale: multiplies the values of a named init; greater than 0, and 1 where init is a tensor.
        sorted: keep the codes in increasing order, as a cumulative sum of positive steps (softplus of the
            parameter `codebook_steps`, whose first entry is the lowest code). `codebook` is then computed
            from it, and the values of init are sorted.
        precision: greater than 0: a float, or num_codebooks values as a sequence or a tensor. Fixed at 1 it
            costs nothing.
        learn_precision: learn it, for each codebook, through its logarithm: the parameter `log_precision`.
        channel_first: where the latents of z are: True, in dimension 1, as the channels of (B, C, H, W);
            False, in the last dimension. None means the last one too, but an error asks where z with four or
            more dimensions and several codebooks could be meant in both ways. With True everything else comes
            and goes in that layout too, and rows are numbered as those of z.movedim(1, -1) in C order.
        dim, num_latents: with dim z has dim values where it else has latents; `project_in`, a
            torch.nn.Linear, makes num_latents of them, and `project_out` makes dim values of their codes.
            indices, kl and weights then have num_latents where quantized has dim. The losses, and the
            gradient that goes straight through, are of the projected z. num_latents may be left out where
            num_codebooks says it.
        revive_after: None, or after how many calls in training without being taken, on any rank, a code
            restarts at one of the call's finite inputs. Which one is decided by the number of calls: it takes
            nothing from PyTorch's generators. All ranks take an input of rank 0, and must make these calls
            together. What an optimizer keeps for a code that restarts stays as it is: its next steps go on
            with the old averages. The counts are in `state_dict` (`revival.unused`, `revival.calls`).
            Programs of torch.compile and other captures, and passes that checkpointing repeats, neither count
            nor restart anything; the latter see the codes of the last call, so that a backward pass has to
            come before the next call. Not for sorted codes.
        backend: as for `gumbel_quantize`.

    Raises:
        TypeError, ValueError: an argument of the wrong type, shape or value, which the message names.
    """

    def __init__(
        self,
        codebook_size: int | None = None,
        *,
        num_codebooks: int | None = None,
        levels: Sequence[int] | None = None,
        estimator: str = "gumbel",
        hard: bool = False,
        temperature: float | Tensor | TemperatureSchedule = 1.0,
        learn_temperature: bool = False,
        kl_weight: float = 0.0,
        commitment_weight: float = 0.0,
        codebook_weight: float = 0.0,
        entropy_weight: float = 0.0,
        init: str | Tensor = "normal",
        init_scale: float = 1.0,
        sorted: bool = False,
        precision: float | Sequence[float] | Tensor = 1.0,
        learn_precision: bool = False,
        channel_first: bool | None = None,
        dim: int | None = None,
        num_latents: int | None = None,
        revive_after: int | None = None,
        backend: str | None = None,
    ) -> None:
        codebook_size, num_codebooks, checked_levels = check_sizes(codebook_size, num_codebooks, levels)
        super().__init__(
            codebook_size,
            num_codebooks,
            init,
            init_scale,
            sorted,
            precision,
            learn_precision,
            checked_levels,
            channel_first=channel_first,
            dim=dim,
            num_latents=num_latents,
        )
        self._set_estimator(estimator, hard, temperature, learn_temperature, backend, ESTIMATORS)
        self.kl_weight = check_float("kl_weight", kl_weight)
        self.commitment_weight = check_float("commitment_weight", commitment_weight)
        self.codebook_weight = check_float("codebook_weight", codebook_weight)
        self.entropy_weight = check_float("entropy_weight", entropy_weight)
        # None is kept as a plain attribute, which costs a call nothing to ask.
        self.revival = make_revival(revive_after, self.num_codebooks, self.codebook_size, self.sorted)

    def forward(
        self,
        z: Tensor,
        *,
        temperature: float | Tensor | None = None,
        mask: Tensor | None = None,
        seed: int | Tensor | None = None,
        row_offset: int | None = None,
        return_weights: bool = False,
        return_kl: bool | None = None,
    ) -> QuantizerOutput:
        """Quantize z, count the codes, and add up the loss.

        Args:
            z: float16, bfloat16, float32 or float64; any shape, or (..., num_codebooks) if there are several;
                with channel_first (B, latents, ...). With dim: (..., dim) or (B, dim, ...), in the dtype that
                the projection takes; one NaN or infinite value makes its position NaN, whose gradient is 0.
            temperature: overrides the module's for this call.
            mask: bool, on z's device, True where z counts: the shape of indices, or that without the latents'
                dimension, for all latents of a position. Where it is False, quantized, weights and kl are 0
                and the index is -1; z may be anything there, NaN too, gets no gradient, and enters no loss
                and no count. Rows are numbered as without the mask, so the others draw the same samples. With
                dim quantized is 0 where the whole position is masked.
            seed, row_offset: of the noise, as for `gumbel_quantize`; where nothing is drawn they change
                nothing. A row_offset of None is rank * 2**40 where torch.distributed is initialised, else 0.
            return_weights: return the weights as well, (*indices.shape, K).
            return_kl: return the KL. None: in training with an estimator that draws, and where kl_weight or
                entropy_weight is not 0. It changes no loss.

        Returns:
            A `QuantizerOutput`: quantized, indices and loss, and as attributes kl, weights and losses.

        Raises:
            TypeError, ValueError, RuntimeError: as `gumbel_quantize`.
        """
        _arguments.check_flag("return_weights", return_weights)
        if return_kl is not None:
            _arguments.check_flag("return_kl", return_kl)
        given = z
        if mask is not None or self._arranges(z):
            z, mask = self._arrange(z, mask)
            z = lies_as(z, given, 1 if self.channel_first else None)
        if self.data_start is not None:
            self._start_if_waiting(z, self.data_start)
        codebook = self.codebook
        revival = self.revival if self.training else None
        if revival is not None or (self.training and self._may_start()):
            # Codes may change in place before this call's backward pass.
            codebook = codebook.clone()
        if revival is not None:
            self._check_codes_last("revive_after must be None")
            if revival.replaced is not None and is_repeated():
                codebook = codebook - codebook.detach() + revival.replaced
        passes: Passes = OnePass
        if self.levels is not None:
            codebook = self._own_codebook(codebook)
            passes = LevelPasses(self.levels, self.code_places)
        taken = self._take(
            passes, z, codebook, temperature, seed, row_offset, return_weights, return_kl, mask is not None
        )
        if revival is not None:
            if happens_once(taken.indices):
                restarted = revival.step(z, taken.indices, self.codebook)
                if restarted is not None:
                    self._write("codebook", restarted)
            elif torch.compiler.is_compiling():
                warn_left_out("revive_after")
        losses = weighted_losses(
            z,
            taken.quantized,
            taken.kl,
            lambda: codes_at(codebook, taken.indices),
            lambda counted: self._entropy(passes, z, codebook, taken, counted),
            kl_weight=self.kl_weight,
            commitment_weight=self.commitment_weight,
            codebook_weight=self.codebook_weight,
            entropy_weight=self.entropy_weight,
        )
        if mask is not None:
            taken = masks.clear(taken, mask)
        if not taken.counted:
            self._usage.count(taken.indices, self._counted_latents(taken.indices), mask is not None)
        kl = None if return_kl is False else taken.kl
        out = QuantizerOutput(
            taken.quantized, taken.indices, total_loss(losses, z), kl, taken.weights, losses
        )
        if self.channel_first or self.dim is not None:
            return self._arrange_output(out, given, mask)
        return out

    def reset_parameters(self) -> None:
        """Start anew: the codes as `init`, `init_scale` and `sorted` say, what else is learned as it was
        given."""
        super().reset_parameters()
        self._reset_temperature()
        revival = getattr(self, "revival", None)
        if revival is not None:
            revival.reset()

    def extra_repr(self) -> str:
        """The settings that matter, those at their default left out."""
        if self.levels is not None:
            sizes = [f"levels={list(self.levels)}"]
        else:
            sizes = [str(self.codebook_size)]
            if self.num_codebooks > 1:
                sizes.append(f"num_codebooks={self.num_codebooks}")
        revival = [] if self.revival is None else [f"revive_after={self.revival.after}"]
        return ", ".join([*sizes, *settings(self, _SETTINGS), *revival])
