"""The five latents: what an encoder's numbers become before they are decoded.

Shapes: M latents, K codes, D numbers in a vector code. Each latent says how many numbers it wants from the
encoder (`head_width`), how many it gives to the decoder (`decoder_width`) and to a discriminator
(`discriminator_width`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fqvae.models.config import LatentConfig
from fqvae_kernels import ScalarQuantizer, gumbel_noise, gumbel_quantize_logits, nearest_quantize

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True)
class Noise:
    """Where a batch's noise comes from: a seed in [0, 2**64), and the number of the batch's first image.

    Image i of the batch draws what image first + i of a larger batch would draw, so that shards of a batch
    draw together what the whole one would have.
    """

    seed: int
    first: int = 0


@dataclass(eq=False)
class Drawn:
    """A batch of latents as training sees it.

    quantized: (batch, decoder_width), for the decoder.
    z: what the encoder says of each latent, before anything is drawn: means of a Gaussian, logits of codes
        (batch, M, K), else its numbers; (batch, M), or (batch, M, D) for vectors.
    kl: (batch, M), of the posterior from the prior, in nats; None without a posterior.
    codes: int64 (batch, M), the codes taken. chosen: their values, in the shape of z, differentiable in the
        codebook; None but for the estimator "nearest".
    log_variance: (batch, M), of a Gaussian.
    discriminator_input: (batch, M, K) weights of the codes or (batch, M, 1) numbers; None if not asked for.
    """

    quantized: Tensor
    z: Tensor
    kl: Tensor | None = None
    codes: Tensor | None = None
    chosen: Tensor | None = None
    log_variance: Tensor | None = None
    discriminator_input: Tensor | None = None


class Latent(nn.Module):
    """What all latents have in common.

    codebook: of a discrete latent alone: (K,), (M, K) with one for each latent, or (K, D).
    """

    discrete = False
    codebook: Tensor

    def __init__(self, config: LatentConfig) -> None:
        super().__init__()
        self.config = config
        self.head_width = self.decoder_width = self.discriminator_width = config.size

    def draw(self, head: Tensor, noise: Noise, temperature: float, discriminator_input: bool) -> Drawn:
        """A sample for training.

        head: (batch, head_width). discriminator_input: whether that is wanted.
        """
        raise NotImplementedError

    def codes(self, head: Tensor) -> Tensor:
        """The most likely code of each latent, nothing drawn: (batch, M), int64 if there is a codebook."""
        raise NotImplementedError

    def values(self, codes: Tensor) -> Tensor:
        """What the decoder takes for these codes, (batch, decoder_width). Raises TypeError, ValueError."""
        if not isinstance(codes, Tensor) or not codes.is_floating_point():
            raise TypeError(f"codes must be a floating-point tensor, but were {_kind(codes)}")
        _check_shape(codes, self.config.size)
        return codes

    def prior(self, count: int, generator: torch.Generator | None) -> Tensor:
        """Codes drawn from the prior, (count, M). Raises ValueError where there is none."""
        raise NotImplementedError

    def initialise(self, generator: torch.Generator) -> None:
        """Set the codebook, if there is one."""


class Plain(Latent):
    """z as it is: the autoencoder's and the BioAE's."""

    def draw(self, head: Tensor, noise: Noise, temperature: float, discriminator_input: bool) -> Drawn:
        """See `Latent.draw`; nothing is drawn."""
        return Drawn(head, head, discriminator_input=head.unsqueeze(-1))

    def codes(self, head: Tensor) -> Tensor:
        """z, (batch, M)."""
        return head

    def prior(self, count: int, generator: torch.Generator | None) -> Tensor:
        """Raises ValueError: a plain autoencoder says nothing about how its latents are distributed."""
        raise ValueError("a model with a plain latent has no prior to sample from")


class Gaussian(Latent):
    """z ~ N(mean, variance), prior N(0, 1); the encoder gives the means, then the log-variances."""

    def __init__(self, config: LatentConfig) -> None:
        super().__init__(config)
        self.head_width = 2 * config.size

    def draw(self, head: Tensor, noise: Noise, temperature: float, discriminator_input: bool) -> Drawn:
        """See `Latent.draw`. kl = (mean**2 + variance - 1 - ln variance) / 2."""
        mean, log_variance = head.chunk(2, dim=1)
        z = mean + (log_variance / 2).exp() * normal_noise(noise, mean)
        kl = (mean.square() + log_variance.expm1() - log_variance) / 2
        return Drawn(z, mean, kl, log_variance=log_variance, discriminator_input=z.unsqueeze(-1))

    def codes(self, head: Tensor) -> Tensor:
        """The means, (batch, M)."""
        return head.chunk(2, dim=1)[0]

    def prior(self, count: int, generator: torch.Generator | None) -> Tensor:
        """N(0, 1), (count, M)."""
        return torch.randn(count, self.config.size, generator=generator)


class _Coded(Latent):
    """A latent with a codebook."""

    discrete = True

    def __init__(self, config: LatentConfig) -> None:
        super().__init__(config)
        self.discriminator_width = config.size * config.codebook_size

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """N(0, 1), or evenly from -1/2 to 1/2."""
        if self.config.init == "normal":
            codes = torch.empty_like(self.codebook).normal_(generator=generator)
        else:
            codes = torch.linspace(-0.5, 0.5, self.config.codebook_size)
        self._set_codebook(codes)

    def values(self, codes: Tensor) -> Tensor:
        """The codes' values, (batch, decoder_width).

        codes: int64 (batch, M) in [0, K), or TypeError, ValueError.
        """
        if not isinstance(codes, Tensor) or codes.dtype != torch.int64:
            raise TypeError(f"codes must be a torch.int64 tensor, but were {_kind(codes)}")
        _check_shape(codes, self.config.size)
        count = self.config.codebook_size
        if codes.numel() and (codes.min() < 0 or codes.max() >= count):
            raise ValueError(f"codes must be in [0, {count}), but ran from {codes.min()} to {codes.max()}")
        return self._look_up(codes).flatten(1)

    def prior(self, count: int, generator: torch.Generator | None) -> Tensor:
        """Uniform over the codes, int64 (count, M)."""
        return torch.randint(self.config.codebook_size, (count, self.config.size), generator=generator)

    def _set_codebook(self, codes: Tensor) -> None:
        self.codebook.copy_(codes)

    def _look_up(self, codes: Tensor) -> Tensor:
        """(batch, M) or, for vectors, (batch, M, D)."""
        raise NotImplementedError

    def _sampling(self, noise: Noise, temperature: float) -> dict[str, Any]:
        """How codes are drawn, as the quantizers' functions take it."""
        return {
            "estimator": self.config.estimator,
            "temperature": temperature,
            "hard": self.config.hard,
            "seed": noise.seed,
            "row_offset": noise.first * self.config.size,
        }


class _ScalarCodes(_Coded):
    """Codes that are numbers, in a `ScalarQuantizer`."""

    def __init__(self, config: LatentConfig) -> None:
        super().__init__(config)
        # "linspace" draws nothing: `initialise` has a generator of its own.
        self.quantizer = self._quantizer("linspace")

    def _quantizer(self, init: str | Tensor) -> ScalarQuantizer:
        config = self.config
        return ScalarQuantizer(
            config.codebook_size,
            num_codebooks=config.size if config.codebooks == "per_latent" else 1,
            estimator=config.estimator,
            hard=config.hard,
            precision=config.precision,  # 1 for logits
            learn_precision=config.learn_precision,
            sorted=config.sorted,
            init=init,
        )

    def _set_codebook(self, codes: Tensor) -> None:
        if self.config.sorted:  # whose codes are sums of what is learned
            self.quantizer = self._quantizer(codes).to(self.codebook)
        else:
            super()._set_codebook(codes)

    @property
    def codebook(self) -> Tensor:  # type: ignore[override]
        """The values of the codes: (K,), or (M, K) with one codebook for each of several latents."""
        return self.quantizer.codebook

    def train(self, mode: bool = True) -> Self:
        """`draw` draws whatever the mode, so the quantizer stays in training; `codes` never draws."""
        super().train(mode)
        self.quantizer.train()
        return self

    def _look_up(self, codes: Tensor) -> Tensor:
        return self.quantizer.codes(codes)


class Scalar(_ScalarCodes):
    """Every number that the encoder gives, quantized to a codebook of scalars (arXiv 2409.14851)."""

    def draw(self, head: Tensor, noise: Noise, temperature: float, discriminator_input: bool) -> Drawn:
        """See `Latent.draw`."""
        found = self.quantizer(
            head,
            temperature=temperature,
            seed=noise.seed,
            row_offset=noise.first * self.config.size,
            return_weights=discriminator_input,
        )
        quantized, codes, _ = found
        chosen = self._look_up(codes) if self.config.estimator == "nearest" else None
        return Drawn(quantized, head, found.kl, codes, chosen, discriminator_input=found.weights)

    def codes(self, head: Tensor) -> Tensor:
        """The nearest codes."""
        return nearest_quantize(head, self.codebook).indices


class Logits(_ScalarCodes):
    """A code drawn for each latent from K logits that the encoder gives: a discrete VAE with scalar codes."""

    def __init__(self, config: LatentConfig) -> None:
        super().__init__(config)
        self.head_width = config.size * config.codebook_size

    def draw(self, head: Tensor, noise: Noise, temperature: float, discriminator_input: bool) -> Drawn:
        """See `Latent.draw`."""
        logits = self._logits(head)
        how = self._sampling(noise, temperature)
        quantized, codes, kl, weights = gumbel_quantize_logits(
            logits, self.codebook, return_weights=discriminator_input, **how
        )
        return Drawn(quantized, logits, kl, codes, discriminator_input=weights)

    def codes(self, head: Tensor) -> Tensor:
        """The codes of the largest logits, the lowest index on a tie."""
        return self._logits(head).argmax(-1)

    def _logits(self, head: Tensor) -> Tensor:
        return head.view(-1, self.config.size, self.config.codebook_size)


class Vector(_Coded):
    """As `Scalar` with codes of D numbers: the quantizer of a VQ-VAE (van den Oord et al., NeurIPS 2017)."""

    def __init__(self, config: LatentConfig) -> None:
        super().__init__(config)
        self.head_width = self.decoder_width = config.size * config.dimension
        self.codebook = nn.Parameter(torch.zeros(config.codebook_size, config.dimension))

    def draw(self, head: Tensor, noise: Noise, temperature: float, discriminator_input: bool) -> Drawn:
        """See `Latent.draw`."""
        z = head.unflatten(1, (self.config.size, self.config.dimension))
        if self.config.estimator == "nearest":
            codes = self.codes(head)
            chosen = self._look_up(codes)
            return Drawn((z + (chosen - z).detach()).flatten(1), z, None, codes, chosen)
        # The kernel draws the weights; it knows scalar codes only, so that the vectors are summed here.
        nothing, how = torch.zeros_like(self.codebook[:, 0]), self._sampling(noise, temperature)
        _, codes, kl, weights = gumbel_quantize_logits(self._logits(z), nothing, return_weights=True, **how)
        assert weights is not None
        with _full_precision(head.device):
            quantized = (weights @ self.codebook).flatten(1)
        return Drawn(quantized, z, kl, codes, discriminator_input=weights)

    def codes(self, head: Tensor) -> Tensor:
        """The nearest codes, the lowest index on a tie."""
        return self._logits(head.unflatten(1, (self.config.size, self.config.dimension))).argmax(-1)

    def _look_up(self, codes: Tensor) -> Tensor:
        return self.codebook[codes]

    def _logits(self, z: Tensor) -> Tensor:
        """-|z - m|**2 + |z|**2, which has the same softmax: (batch, M, K)."""
        with _full_precision(z.device):
            logits: Tensor = z @ self.codebook.T * 2
        return logits - self.codebook.square().sum(-1)


def build_latent(config: LatentConfig) -> Latent:
    """The latent that the configuration describes, its codebook all zero until `initialise` is called."""
    kinds: dict[str, type[Latent]] = {
        "plain": Plain,
        "gaussian": Gaussian,
        "scalar": Scalar,
        "logits": Logits,
        "vector": Vector,
    }
    return kinds[config.kind](config)


def _full_precision(device: torch.device) -> torch.autocast:
    """Inside, autocast leaves matrix products alone: codes are compared and summed in full precision."""
    return torch.autocast(device.type, enabled=False)


def normal_noise(noise: Noise, like: Tensor) -> Tensor:
    """N(0, 1), shape, dtype and device of `like`, (batch, M): the same numbers on every device.

    Box and Muller's transform of the exponentials e = -ln u under `gumbel_noise` (1958): with one of them
    as half the squared radius and exp(-e) of another as the angle's turn.
    """
    batch, latents = like.shape
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    gumbels = gumbel_noise(
        noise.seed, batch, 2 * latents, row_offset=noise.first, device=like.device, dtype=dtype
    )
    half_square, turn = (-gumbels).exp().chunk(2, dim=1)
    angle = (-turn).exp() * (2 * math.pi)
    return ((half_square * 2).sqrt() * angle.cos()).to(like.dtype)


def _check_shape(codes: Tensor, latents: int) -> None:
    if codes.dim() != 2 or codes.shape[1] != latents:
        raise ValueError(f"codes must have shape (batch, {latents}), but had shape {tuple(codes.shape)}")


def _kind(codes: object) -> str:
    return str(codes.dtype) if isinstance(codes, Tensor) else type(codes).__name__
