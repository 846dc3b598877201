"""Models of images, of diffusers and pythae, on digits."""

from __future__ import annotations

from torch import Tensor, nn

from adoption.case import Case, Kind, Task, codes_in_use
from adoption.data import digits
from adoption.quantizers import scalars
from fqvae_kernels.adapters import DiffusersQuantizer, PythaeQuantizer

F = nn.functional
IMPORT = "from fqvae_kernels import ScalarQuantizer"


def diffusers_vqmodel(kind: str) -> Task:
    """VQModel on digits of 16 x 16: 64 positions of 8 bits."""
    import diffusers

    model = diffusers.VQModel(
        1, 1, ("DownEncoderBlock2D",) * 2, ("UpDecoderBlock2D",) * 2, (16, 32), 1, latent_channels=4,
        num_vq_embeddings=256, norm_num_groups=4, vq_embed_dim=4, mid_block_add_attention=False,
    )  # fmt: skip
    if kind == "ours":
        model.quantize = DiffusersQuantizer(scalars(levels=[8, 8, 4], dim=4, channel_first=True))
    train, test = digits(16)

    def loss(batch: Tensor, progress: float) -> tuple[Tensor, Tensor]:
        found = model(batch)
        return F.mse_loss(found.sample, batch), found.commit_loss

    def evaluate(data: Tensor) -> tuple[float, float]:
        latents = model.encode(data).latents
        indices = model.quantize(latents)[2][2]
        rows = indices.reshape(-1, 1) if kind == "theirs" else indices.movedim(1, -1).reshape(-1, 3)
        return F.mse_loss(model.decode(latents).sample, data).item(), codes_in_use(rows)

    return Task(model, train, test, loss, evaluate)


def pythae_vqvae(kind: str) -> Task:
    """VQVAE on digits of 16 x 16 in [0, 1]: with its default networks 8 scalars an image, of 512 codes."""
    from pythae.models import VQVAE, VQVAEConfig

    size = 16
    config = VQVAEConfig((1, size, size), latent_dim=8, num_embeddings=512, use_ema=kind == "EMA")
    model = VQVAE(config)
    if kind == "ours":
        model.quantizer = PythaeQuantizer(scalars(codebook_size=512))
    train, test = ((images + 1) / 2 for images in digits(size))

    def loss(batch: Tensor, progress: float) -> tuple[Tensor, Tensor]:
        # The model's own loss, a sum over the pixels, divided by their number.
        found = model({"data": batch})
        return found.recon_loss / size**2, found.vq_loss / size**2

    def evaluate(data: Tensor) -> tuple[float, float]:
        found = model({"data": data})
        return found.recon_loss.item() / size**2, codes_in_use(found.quantized_indices.reshape(-1, 1))

    return Task(model, train, test, loss, evaluate)


CASES = {
    "diffusers": Case(
        "diffusers VQModel",
        {
            "theirs": Kind("256 vectors, nearest", 256),
            "ours": Kind(
                "3 scalars of 8, 8 and 4 codes",
                256,
                (
                    IMPORT,
                    "from fqvae_kernels.adapters import DiffusersQuantizer",
                    "model.quantize = DiffusersQuantizer(ScalarQuantizer(...))",
                ),
            ),
        },
        diffusers_vqmodel,
        steps=600,
        batch_size=32,
        learning_rate=1e-3,
        packages=("sklearn", "diffusers"),
    ),
    "pythae": Case(
        "pythae VQVAE",
        {
            "theirs": Kind("512 codes, nearest", 512),
            "EMA": Kind("512 codes, nearest, EMA", 512, ("VQVAEConfig(use_ema=True)",)),
            "ours": Kind(
                "512 codes",
                512,
                (
                    IMPORT,
                    "from fqvae_kernels.adapters import PythaeQuantizer",
                    "model.quantizer = PythaeQuantizer(ScalarQuantizer(...))",
                ),
            ),
        },
        pythae_vqvae,
        steps=600,
        batch_size=64,
        learning_rate=1e-3,
        packages=("sklearn", "pythae"),
    ),
}
