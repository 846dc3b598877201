"""A `ScalarQuantizer` in the place of another model's quantizer: what goes in and comes out as it does there.

A quantizer put there as it is returns `quantized, indices, loss`, and a model that unpacks `quantized, loss,
info` would train on the indices. Each adapter holds the quantizer as `quantizer`; its settings, usage and
state are found there.
"""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor, nn

from fqvae_kernels import _arguments
from fqvae_kernels.quantizer import ScalarQuantizer

__all__ = ["DacQuantizer", "DiffusersQuantizer", "PythaeQuantizer"]


class _Adapter(nn.Module):
    """Holds the quantizer."""

    def __init__(self, quantizer: ScalarQuantizer) -> None:
        super().__init__()
        if not isinstance(quantizer, ScalarQuantizer):
            raise TypeError(f"quantizer must be a ScalarQuantizer, but was {type(quantizer).__name__}")
        self.quantizer = quantizer


class DiffusersQuantizer(_Adapter):
    """For `diffusers`' VQModel (`model.quantize`) and whatever else unpacks `z_q, loss, info`.

    Every number of z, or latent of its projection, is quantized: a position's code is that of its latents
    together.

    Args:
        quantizer: with one codebook, which takes z of any shape; or with channel_first=True and a codebook
            or level for each channel, or `dim`, the number of channels, and any number of latents.

    Raises TypeError for another quantizer.
    """

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor, tuple[None, None, Tensor]]:
        """z: (B, C, ...). Returns the quantized z, the quantizer's loss, and (None, None, indices)."""
        quantized, indices, loss = self.quantizer(z)
        return quantized, loss, (None, None, indices)

    def get_codebook_entry(self, indices: Tensor, shape: tuple[int, ...] | None = None) -> Tensor:
        """The codes at indices (B, latents, ...): (B, C, ...), or in the shape given as (B, ..., C)."""
        codes = self.quantizer.codes(indices)
        return codes if shape is None else codes.reshape(shape[0], shape[-1], *shape[1:-1])


class PythaeQuantizer(_Adapter):
    """For `pythae`'s VQVAE (`model.quantizer`).

    Args:
        quantizer: with one codebook, or one for each channel.

    Raises TypeError for another quantizer.
    """

    def forward(self, z: Tensor, uses_ddp: bool = False) -> SimpleNamespace:
        """z: (B, H, W, C). Returns `quantized_vector` (B, C, H, W), `quantized_indices` (B, C, H, W), `loss`.

        uses_ddp: pythae's, for its EMA codebook; changes nothing here.
        """
        quantized, indices, loss = self.quantizer(z)
        return SimpleNamespace(
            quantized_vector=quantized.permute(0, 3, 1, 2),
            quantized_indices=indices.permute(0, 3, 1, 2),
            loss=loss,
        )


class DacQuantizer(_Adapter):
    """For one of `model.quantizer.quantizers` of `transformers`' DacModel, with projections of its own.

    A frame's code is one number, its scalars' indices packed. The quantizer's loss comes as the codebook
    loss, which DAC gives the weight 1, and the commitment loss is 0.

    Args:
        quantizer: with one codebook and without dim. With channel_first=True its usage has the M scalars;
            else a frame's place counts as a latent.
        hidden_size: of the encoder's output (`config.hidden_size`).
        latents: M, scalars a frame; M log2(K) is at most 63.

    Raises:
        TypeError: another quantizer; a hidden_size or latents that is no integer.
        ValueError: several codebooks, a dim, no latents, or codes of more than 63 bits.
    """

    def __init__(self, quantizer: ScalarQuantizer, hidden_size: int, latents: int) -> None:
        super().__init__(quantizer)
        if quantizer.num_codebooks != 1:
            raise ValueError(f"quantizer must have one codebook, but had {quantizer.num_codebooks}")
        if quantizer.dim is not None:
            raise ValueError(f"quantizer must have no dim: the adapter projects; but had {quantizer.dim}")
        hidden_size = _arguments.check_count("hidden_size", hidden_size, 1)
        latents = _arguments.check_count("latents", latents, 1)
        if quantizer.codebook_size**latents > 2**63:
            raise ValueError(
                "the codes of a frame must be at most 2**63, but there were "
                f"{latents} latents of {quantizer.codebook_size} codes"
            )
        self.codebook_dim = latents
        self.in_proj = nn.Conv1d(hidden_size, latents, kernel_size=1)
        self.out_proj = nn.Conv1d(latents, hidden_size, kernel_size=1)

    def forward(self, hidden_state: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """hidden_state: (B, hidden_size, T).

        Returns:
            quantized (B, hidden_size, T), commitment loss, codebook loss, codes (B, T) int64, and the
            projected scalars (B, M, T).
        """
        projected = self.in_proj(hidden_state)
        quantized, indices, loss = self.quantizer(projected)
        return self.out_proj(quantized), torch.zeros_like(loss), loss, self._packed(indices), projected

    def decode_latents(self, hidden_states: Tensor) -> tuple[Tensor, Tensor]:
        """Nearest codes of projected scalars (B, M, T): their values, and the packed codes (B, T)."""
        training = self.quantizer.training
        try:
            quantized, indices, _ = self.quantizer.eval()(hidden_states)
        finally:
            self.quantizer.train(training)
        return quantized, self._packed(indices)

    def codebook(self, codes: Tensor) -> Tensor:
        """The scalars (B, T, M) that packed codes (B, T) stand for."""
        scalars = self.quantizer.codes(self.quantizer.from_tokens(codes, num_latents=self.codebook_dim))
        return scalars.movedim(1, -1) if self.quantizer.channel_first else scalars

    def _packed(self, indices: Tensor) -> Tensor:
        """Indices (B, M, T) as one number (B, T), the first latent's the most significant."""
        return self.quantizer.to_tokens(indices if self.quantizer.channel_first else indices.movedim(1, -1))
