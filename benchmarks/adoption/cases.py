"""The models, each with its own quantizer ("theirs") and with ours, at equal bits."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from fqvae_kernels import ScalarQuantizer, gumbel_softmax, patched
from fqvae_kernels.adapters import DacQuantizer, DiffusersQuantizer, PythaeQuantizer

KINDS = ("theirs", "ours")
F = nn.functional


@dataclass
class Task:
    """A model and its data, first dimension the samples.

    loss(batch, progress): the task's loss and the quantizer's own. evaluate(data): the task's loss in eval()
    and the number of codes in use.
    """

    model: nn.Module
    train: Tensor
    test: Tensor
    loss: Callable[[Tensor, float], tuple[Tensor, Tensor]]
    evaluate: Callable[[Tensor], tuple[float, float]]


@dataclass(frozen=True)
class Case:
    """How a task is made and trained. quantizers: what each kind is, for the table."""

    title: str
    quantizers: dict[str, str]
    make: Callable[[str], Task]
    steps: int
    batch_size: int
    learning_rate: float


def digits(size: int) -> tuple[Tensor, Tensor]:
    """scikit-learn's digits, (N, 1, size, size) in [-1, 1]: 1,500 to train and 297 held out."""
    images = torch.from_numpy(load_digits().images / 8 - 1).float().unsqueeze(1)
    images = F.interpolate(images, (size, size), mode="bilinear")
    images = images[torch.randperm(len(images), generator=torch.Generator().manual_seed(0))]
    return images[:1500], images[1500:]


def tones(count: int, length: int) -> Tensor:
    """Sums of two decaying tones (count, length), made from a fixed seed: 16 kHz, 100 to 2,000 Hz."""
    generator = torch.Generator().manual_seed(0)
    time = torch.arange(length) / 16_000
    pitch = 100 * 20 ** torch.rand(count, 2, 1, generator=generator)
    decay = 5 + 45 * torch.rand(count, 2, 1, generator=generator)
    phase = 2 * math.pi * torch.rand(count, 2, 1, generator=generator)
    return 0.4 * ((2 * math.pi * pitch * time + phase).sin() * (-decay * time).exp()).sum(1)


def scalars(**options: object) -> ScalarQuantizer:
    """Ours as the table has it: Gumbel-Softmax, straight-through, with a commitment."""
    settings = {"hard": True, "kl_weight": 1e-4, "commitment_weight": 0.25, "codebook_weight": 0.25}
    return ScalarQuantizer(**(settings | options))  # type: ignore[arg-type]


def codes_in_use(indices: Tensor) -> float:
    """Different rows of indices (N, latents)."""
    return float(len(indices.unique(dim=0)))


def diffusers_vqmodel(kind: str) -> Task:
    """VQModel on digits of 16 x 16: 64 positions of 8 bits."""
    import diffusers

    model = diffusers.VQModel(
        1, 1, ("DownEncoderBlock2D",) * 2, ("UpDecoderBlock2D",) * 2, (16, 32), 1, latent_channels=4,
        num_vq_embeddings=256, norm_num_groups=4, vq_embed_dim=4, mid_block_add_attention=False,
    )  # fmt: skip
    if kind == "ours":
        model.quantize = DiffusersQuantizer(scalars(codebook_size=4))
    train, test = digits(16)

    def loss(batch: Tensor, progress: float) -> tuple[Tensor, Tensor]:
        found = model(batch)
        return F.mse_loss(found.sample, batch), found.commit_loss

    def evaluate(data: Tensor) -> tuple[float, float]:
        latents = model.encode(data).latents
        indices = model.quantize(latents)[2][2]
        rows = indices.reshape(-1, 1) if kind == "theirs" else indices.movedim(1, -1).reshape(-1, 4)
        return F.mse_loss(model.decode(latents).sample, data).item(), codes_in_use(rows)

    return Task(model, train, test, loss, evaluate)


def pythae_vqvae(kind: str) -> Task:
    """VQVAE on digits of 16 x 16: with its default networks 8 scalars an image, each of 512 codes."""
    from pythae.models import VQVAE, VQVAEConfig

    model = VQVAE(VQVAEConfig(input_dim=(1, 16, 16), latent_dim=8, num_embeddings=512))
    if kind == "ours":
        model.quantizer = PythaeQuantizer(scalars(codebook_size=512))
    train, test = digits(16)

    def loss(batch: Tensor, progress: float) -> tuple[Tensor, Tensor]:
        found = model({"data": batch})
        return found.recon_loss / 256, found.vq_loss

    def evaluate(data: Tensor) -> tuple[float, float]:
        found = model({"data": data})
        return found.recon_loss.item() / 256, codes_in_use(found.quantized_indices.reshape(len(data), -1))

    return Task(model, train, test, loss, evaluate)


def transformers_dac(kind: str) -> Task:
    """DacModel on tones: two residual codebooks of 8 bits for 8 samples."""
    from transformers import DacConfig, DacModel

    config = DacConfig(
        encoder_hidden_size=16, downsampling_ratios=[2, 4], upsampling_ratios=[4, 2], decoder_hidden_size=32,
        n_codebooks=2, codebook_size=256, codebook_dim=4, quantizer_dropout=0.0,
    )  # fmt: skip
    model = DacModel(config)
    if kind == "ours":
        for place in range(2):
            model.quantizer.quantizers[place] = DacQuantizer(scalars(codebook_size=4), config.hidden_size, 4)
    audio = tones(600, 512).unsqueeze(1)

    def decoded(encoded: object, like: Tensor) -> Tensor:
        found: Tensor = model.decode(encoded.quantized_representation).audio_values  # type: ignore[attr-defined]
        return F.mse_loss(found, like[:, 0, : found.shape[-1]])

    def loss(batch: Tensor, progress: float) -> tuple[Tensor, Tensor]:
        encoded = model.encode(batch)
        return decoded(encoded, batch), encoded.loss.mean()

    def evaluate(data: Tensor) -> tuple[float, float]:
        encoded = model.encode(data)
        return decoded(encoded, data).item(), codes_in_use(encoded.audio_codes[:, :1].reshape(-1, 1))

    return Task(model, audio[:500], audio[500:], loss, evaluate)


def transformers_wav2vec2(kind: str) -> Task:
    """Wav2Vec2ForPreTraining on tones; ours by `patched`, no line of the model changes."""
    from transformers import Wav2Vec2Config, Wav2Vec2ForPreTraining
    from transformers.models.wav2vec2.modeling_wav2vec2 import _compute_mask_indices, _sample_negative_indices

    config = Wav2Vec2Config(
        hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128, conv_dim=[64] * 3,
        conv_stride=[5, 4, 2], conv_kernel=[10, 5, 3], num_feat_extract_layers=3, num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4, num_codevectors_per_group=320, codevector_dim=64,
        proj_codevector_dim=64, num_negatives=20, mask_time_length=4, feat_extract_norm="layer",
        do_stable_layer_norm=True,
    )  # fmt: skip
    model = Wav2Vec2ForPreTraining(config)
    audio = tones(600, 4000)
    audio = (audio - audio.mean(-1, keepdim=True)) / audio.std(-1, keepdim=True)

    def call(batch: Tensor, progress: float) -> object:
        length = int(model._get_feat_extract_output_lengths(batch.shape[-1]))
        shape = (len(batch), length)
        mask = _compute_mask_indices(shape, 0.5, 4)
        negatives = torch.from_numpy(_sample_negative_indices(shape, 20, mask))
        model.set_gumbel_temperature(max(2.0 * 0.25**progress, 0.5))
        found = model(batch, mask_time_indices=torch.from_numpy(mask), sampled_negative_indices=negatives)
        masked = float(mask.sum())
        return (
            found.contrastive_loss / masked,
            0.1 * found.diversity_loss / masked,
            found.codevector_perplexity,
        )

    def loss(batch: Tensor, progress: float) -> tuple[Tensor, Tensor]:
        if kind == "theirs":
            return call(batch, progress)[:2]  # type: ignore[index, no-any-return]
        with patched():
            return call(batch, progress)[:2]  # type: ignore[index, no-any-return]

    def evaluate(data: Tensor) -> tuple[float, float]:
        contrastive, _, perplexity = call(data, 1.0)  # type: ignore[misc]
        return contrastive.item(), perplexity.item()

    return Task(model, audio[:500], audio[500:], loss, evaluate)


def dvae(kind: str) -> Task:
    """A discrete VAE with F.gumbel_softmax on digits of 16 x 16: 16 positions of 64 codes."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.Sequential(
                *(
                    nn.Conv2d(1, 32, 4, 2, 1),
                    nn.ReLU(),
                    nn.Conv2d(32, 64, 4, 2, 1),
                    nn.ReLU(),
                    nn.Conv2d(64, 64, 1),
                )
            )
            self.vectors = nn.Parameter(torch.randn(64, 32))
            self.decoder = nn.Sequential(
                *(nn.ConvTranspose2d(32, 64, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(64, 1, 4, 2, 1))
            )

    model = Model()
    train, test = digits(16)
    sample = F.gumbel_softmax if kind == "theirs" else gumbel_softmax

    def decode(weights: Tensor) -> Tensor:
        found: Tensor = model.decoder(torch.einsum("bkhw,kd->bdhw", weights, model.vectors))
        return found

    def loss(batch: Tensor, progress: float) -> tuple[Tensor, Tensor]:
        logits = model.encoder(batch)
        weights = sample(logits, tau=max(0.9 ** (20 * progress), 0.3), dim=1)
        posterior = logits.log_softmax(1)
        kl = (posterior.exp() * (posterior + math.log(64))).sum(1).mean()
        return F.mse_loss(decode(weights), batch), 1e-4 * kl

    def evaluate(data: Tensor) -> tuple[float, float]:
        indices = model.encoder(data).argmax(1)
        one_hot = F.one_hot(indices, 64).movedim(-1, 1).float()
        return F.mse_loss(decode(one_hot), data).item(), codes_in_use(indices.reshape(-1, 1))

    return Task(model, train, test, loss, evaluate)


CASES = {
    "diffusers": Case(
        "diffusers VQModel",
        {"theirs": "256 vectors, nearest", "ours": "4 scalars of 4 codes"},
        diffusers_vqmodel,
        steps=600,
        batch_size=32,
        learning_rate=1e-3,
    ),
    "pythae": Case(
        "pythae VQVAE",
        {"theirs": "512 codes, nearest", "ours": "512 codes"},
        pythae_vqvae,
        steps=600,
        batch_size=64,
        learning_rate=1e-3,
    ),
    "dac": Case(
        "transformers DAC",
        {"theirs": "2 x 256 vectors, residual", "ours": "2 x 4 scalars of 4 codes, residual"},
        transformers_dac,
        steps=300,
        batch_size=16,
        learning_rate=1e-3,
    ),
    "wav2vec2": Case(
        "transformers wav2vec2",
        {"theirs": "F.gumbel_softmax", "ours": "the same by patched()"},
        transformers_wav2vec2,
        steps=200,
        batch_size=16,
        learning_rate=5e-4,
    ),
    "dvae": Case(
        "dVAE",
        {"theirs": "F.gumbel_softmax", "ours": "gumbel_softmax"},
        dvae,
        steps=600,
        batch_size=64,
        learning_rate=2e-3,
    ),
}
