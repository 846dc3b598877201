"""`GumbelVectorQuantizer` in transformers' pretraining of wav2vec 2.0, against the quantizer that is there.

    pip install transformers
    python examples/wav2vec_quantizer.py

A small model is trained on made-up sounds for a few steps, with equal weights, batches and masks, three
times: with transformers' own quantizer; with that, `torch.nn.functional.gumbel_softmax` replaced by the one
of fqvae_kernels; and with `GumbelVectorQuantizer`. The last two draw the same noise, so their losses agree
but for rounding.
"""

import argparse
import contextlib
import copy
import statistics
import time

import numpy as np
import torch
from torch import Tensor
from transformers import Wav2Vec2Config, Wav2Vec2ForPreTraining
from transformers.models.wav2vec2.modeling_wav2vec2 import _compute_mask_indices, _sample_negative_indices

import fqvae_kernels


class Quantizer(fqvae_kernels.GumbelVectorQuantizer):
    """With the face of transformers' quantizer, whose model makes the diversity loss from the perplexity."""

    def forward(self, x: Tensor, mask_time_indices: Tensor | None = None) -> tuple[Tensor, Tensor]:
        out = super().forward(x, mask=mask_time_indices)
        return out.quantized, self.num_codebooks * self.codebook_size * (1 - out.losses["diversity"])


def replace_quantizer(model: Wav2Vec2ForPreTraining) -> None:
    """Put ours, with the weights of theirs, in its place."""
    config, theirs = model.config, model.quantizer
    ours = Quantizer(
        config.conv_dim[-1],
        config.num_codevectors_per_group,
        config.codevector_dim,
        num_codebooks=config.num_codevector_groups,
        # A long training lowers it: fqvae_kernels.TemperatureSchedule(2.0, 0.5, decay=0.999995).
        temperature=float(theirs.temperature),
        diversity_weight=1.0,
    )
    ours.projection.load_state_dict(theirs.weight_proj.state_dict())
    with torch.no_grad():
        ours.embedding.copy_(theirs.codevectors.reshape(ours.embedding.shape))
    model.quantizer = ours


def small_model() -> Wav2Vec2ForPreTraining:
    """The encoder is small; the quantizer has the size of wav2vec 2.0's base model."""
    torch.manual_seed(0)
    config = Wav2Vec2Config(
        hidden_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=192,
        conv_dim=(64,) * 7,
        num_codevectors_per_group=320,
        num_codevector_groups=2,
        codevector_dim=256,
        proj_codevector_dim=64,
        num_negatives=20,
        mask_time_prob=0.65,
        layerdrop=0.0,
    )
    return Wav2Vec2ForPreTraining(config).train()


def sounds(clips: int, samples: int) -> Tensor:
    """Three gliding tones and noise, each clip of its own, (clips, samples), mean 0 and variance 1."""
    at = torch.arange(samples) / 16_000
    pitch, glide = 80 * 40 ** torch.rand(clips, 3, 1), 400 * torch.randn(clips, 3, 1)
    loudness = torch.rand(clips, 3, 1)
    tones = loudness * torch.sin(2 * torch.pi * (pitch + glide * at) * at)
    values = tones.sum(1) + 0.1 * torch.randn(clips, samples)
    return (values - values.mean(-1, keepdim=True)) / values.std(-1, keepdim=True)


def batches(model: Wav2Vec2ForPreTraining, steps: int, clips: int, samples: int) -> list[dict[str, Tensor]]:
    """Sounds with their masks and negatives, the same for each run."""
    np.random.seed(0)  # noqa: NPY002  transformers draws there
    config, made = model.config, []
    frames = int(model._get_feat_extract_output_lengths(samples))
    for _ in range(steps):
        mask = _compute_mask_indices((clips, frames), config.mask_time_prob, config.mask_time_length)
        negatives = _sample_negative_indices((clips, frames), config.num_negatives, mask)
        made.append(
            {
                "input_values": sounds(clips, samples),
                "mask_time_indices": torch.from_numpy(mask).bool(),
                "sampled_negative_indices": torch.from_numpy(negatives).long(),
            }
        )
    return made


def train(model: Wav2Vec2ForPreTraining, data: list[dict[str, Tensor]]) -> tuple[list[float], float, float]:
    """The loss of each step per masked frame, the median milliseconds of a step and of its quantizer."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
    losses, steps, quantizing, began = [], [], [], [0.0]
    model.quantizer.register_forward_pre_hook(lambda *_: began.append(time.perf_counter()))
    model.quantizer.register_forward_hook(lambda *_: quantizing.append(time.perf_counter() - began[-1]))
    torch.manual_seed(1)
    for batch in data:
        begin = time.perf_counter()
        loss = model(**batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        steps.append(time.perf_counter() - begin)
        losses.append(loss.item() / int(batch["mask_time_indices"].sum()))
    return losses, 1e3 * statistics.median(steps), 1e3 * statistics.median(quantizing)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--clips", type=int, default=4, help="clips of a batch")
    parser.add_argument("--seconds", type=float, default=2.0, help="of a clip, at 16 kHz")
    options = parser.parse_args()
    model = small_model()
    data = batches(model, options.steps, options.clips, int(16_000 * options.seconds))
    frames = data[0]["mask_time_indices"].numel()
    print(f"{options.steps} steps of {frames} frames, {torch.get_num_threads()} threads")
    print(f"{'quantizer':<32}{'first loss':>12}{'last loss':>12}{'ms a step':>12}{'forward':>10}")
    for name in ("transformers", "transformers, patched", "GumbelVectorQuantizer"):
        copied = copy.deepcopy(model)
        if name == "GumbelVectorQuantizer":
            replace_quantizer(copied)
        patched = "patched" in name
        with fqvae_kernels.patched() if patched else contextlib.nullcontext():
            losses, step, quantizer = train(copied, data)
        print(f"{name:<32}{losses[0]:>12.5f}{losses[-1]:>12.5f}{step:>12.1f}{quantizer:>10.1f}", flush=True)


if __name__ == "__main__":
    main()
