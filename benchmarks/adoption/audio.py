"""Models of sound, of transformers, on tones."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor, nn

from adoption.case import Case, Kind, Task, codes_in_use
from adoption.data import tones
from adoption.quantizers import scalars
from fqvae_kernels import patched
from fqvae_kernels.adapters import DacQuantizer

F = nn.functional


def transformers_dac(kind: str) -> Task:
    """DacModel: two residual codebooks of 8 bits for 8 samples."""
    from transformers import DacConfig, DacModel

    config = DacConfig(
        encoder_hidden_size=16, downsampling_ratios=[2, 4], upsampling_ratios=[4, 2], decoder_hidden_size=32,
        n_codebooks=2, codebook_size=256, codebook_dim=4, quantizer_dropout=0.0,
    )  # fmt: skip
    model: Any = DacModel(config)
    if kind == "ours":
        for place in range(config.n_codebooks):
            quantizer = DacQuantizer(scalars(codebook_size=4), config.hidden_size, latents=4)
            model.quantizer.quantizers[place] = quantizer
    audio = tones(600, 512).unsqueeze(1)

    def decoded(encoded: Any, like: Tensor) -> Tensor:
        found: Tensor = model.decode(encoded.quantized_representation).audio_values
        return F.mse_loss(found, like[:, 0, : found.shape[-1]])

    def loss(batch: Tensor, progress: float) -> tuple[Tensor, Tensor]:
        encoded = model.encode(batch)
        return decoded(encoded, batch), encoded.loss.mean()

    def evaluate(data: Tensor) -> tuple[float, float]:
        encoded = model.encode(data)
        return decoded(encoded, data).item(), codes_in_use(encoded.audio_codes[:, :1].reshape(-1, 1))

    return Task(model, audio[:500], audio[500:], loss, evaluate)


def transformers_wav2vec2(kind: str) -> Task:
    """Wav2Vec2ForPreTraining; ours by `patched`, no line of the model changes."""
    from transformers import Wav2Vec2Config, Wav2Vec2ForPreTraining
    from transformers.models.wav2vec2.modeling_wav2vec2 import _compute_mask_indices, _sample_negative_indices

    config = Wav2Vec2Config(
        hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128, conv_dim=[64] * 3,
        conv_stride=[5, 4, 2], conv_kernel=[10, 5, 3], num_feat_extract_layers=3, num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4, num_codevectors_per_group=320, codevector_dim=64,
        proj_codevector_dim=64, num_negatives=20, mask_time_length=4, feat_extract_norm="layer",
        do_stable_layer_norm=True,
    )  # fmt: skip
    model: Any = Wav2Vec2ForPreTraining(config)
    audio = tones(600, 4000)
    audio = (audio - audio.mean(-1, keepdim=True)) / audio.std(-1, keepdim=True)
    swapped: Any = {"theirs": contextlib.nullcontext, "ours": patched}[kind]

    def call(batch: Tensor, progress: float) -> tuple[Tensor, Tensor, Tensor]:
        """Contrastive and diversity loss of a masked position, and the perplexity of the codes."""
        length = int(model._get_feat_extract_output_lengths(batch.shape[-1]))
        shape = (len(batch), length)
        mask = _compute_mask_indices(shape, 0.5, 4)
        negatives = torch.from_numpy(_sample_negative_indices(shape, 20, mask))
        model.set_gumbel_temperature(max(2.0 * 0.25**progress, 0.5))
        with swapped():
            found = model(batch, mask_time_indices=torch.from_numpy(mask), sampled_negative_indices=negatives)
        masked = float(mask.sum())
        diversity = config.diversity_loss_weight * found.diversity_loss
        return found.contrastive_loss / masked, diversity / masked, found.codevector_perplexity

    def loss(batch: Tensor, progress: float) -> tuple[Tensor, Tensor]:
        return call(batch, progress)[:2]

    def evaluate(data: Tensor) -> tuple[float, float]:
        contrastive, _, perplexity = call(data, 1.0)
        return contrastive.item(), perplexity.item()

    return Task(model, audio[:500], audio[500:], loss, evaluate)


CASES = {
    "dac": Case(
        "transformers DAC",
        {
            "theirs": Kind("2 x 256 vectors, residual", 256),
            "ours": Kind(
                "2 x 4 scalars of 4 codes, residual",
                256,
                (
                    "from fqvae_kernels import ScalarQuantizer",
                    "from fqvae_kernels.adapters import DacQuantizer",
                    "for place in range(config.n_codebooks):",
                    "    quantizer = DacQuantizer(ScalarQuantizer(...), config.hidden_size, latents=4)",
                    "    model.quantizer.quantizers[place] = quantizer",
                ),
            ),
        },
        transformers_dac,
        steps=300,
        batch_size=16,
        learning_rate=1e-3,
        packages=("transformers",),
    ),
    "wav2vec2": Case(
        "transformers wav2vec2",
        {
            "theirs": Kind("F.gumbel_softmax", 640),
            "ours": Kind("the same by patch()", 640, ("import fqvae_kernels", "fqvae_kernels.patch()")),
        },
        transformers_wav2vec2,
        steps=200,
        batch_size=16,
        learning_rate=5e-4,
        packages=("transformers",),
    ),
}
