"""Encoders, decoders and the discriminator. Shapes: images (batch, channels, S, S)."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fqvae.models.config import ConfigError, DiscriminatorConfig, NetworkConfig

_GROUPS, _BLOCKS = 3, 2  # of the official network: groups of residual blocks, blocks in a group
_SEED_CHANNELS = 64  # of the quarter-size map with which its decoder begins


class Network(nn.Sequential):
    """Layers in a row. torch.compile makes one program of this class, but several of nn.Sequential."""

    def forward(self, x: Tensor) -> Tensor:
        """Each layer after the other."""
        for layer in self:
            x = layer(x)
        return x


def build_encoder(config: NetworkConfig, image_size: int, outputs: int, channels: int = 3) -> Network:
    """(batch, channels, S, S) -> (batch, outputs).

    Raises ConfigError for an S that the network cannot halve as often as it has to.
    """
    size = _smallest_size(config, image_size)
    c, hidden = config.channels, config.hidden
    if config.kind == "light":
        convolutions = _between_relus(
            [nn.Conv2d(i, o, 4, 2, 1) for i, o in ((channels, c), (c, 2 * c), (2 * c, 4 * c))]
        )
        dense = [nn.Linear(4 * c * size**2, hidden)]
    else:
        blocks = _groups((c, c, 2 * c, 4 * c), (3, 3, 3, 1), upward=False)
        convolutions = [nn.Conv2d(channels, c, 3, padding=1), *blocks]
        dense = [nn.Linear(4 * c * size**2, hidden), nn.Linear(hidden, hidden)]
    head = nn.Linear(hidden, outputs)
    return Network(*convolutions, nn.Flatten(), nn.ReLU(), *_between_relus([*dense, head]))


def build_decoder(config: NetworkConfig, image_size: int, inputs: int, channels: int = 3) -> Network:
    """(batch, inputs) -> (batch, channels, S, S), no activation at the end. Raises like `build_encoder`."""
    size = _smallest_size(config, image_size)
    c, hidden = config.channels, config.hidden
    if config.kind == "light":
        pairs = ((4 * c, 2 * c), (2 * c, c), (c, channels))
        dense = _between_relus([nn.Linear(inputs, hidden), nn.Linear(hidden, 4 * c * size**2)])
        convolutions = _between_relus([nn.ConvTranspose2d(i, o, 4, 2, 1) for i, o in pairs])
        return Network(*dense, nn.ReLU(), nn.Unflatten(1, (4 * c, size, size)), *convolutions)
    seed = nn.Linear(inputs, _SEED_CHANNELS * size**2)
    blocks = _groups((_SEED_CHANNELS, 4 * c, 2 * c, c), (1, 3, 3, 3), upward=True)
    unflatten = nn.Unflatten(1, (_SEED_CHANNELS, size, size))
    return Network(seed, unflatten, *blocks, nn.ReLU(), nn.Conv2d(c, channels, 1))


def build_discriminator(config: DiscriminatorConfig, inputs: int) -> Network:
    """(batch, ...) of `inputs` numbers -> (batch, 2) logits: from the joint distribution, from the product.

    Kim & Mnih, "Disentangling by Factorising", ICML 2018.
    """
    widths = [inputs] + [config.width] * (config.layers - 1)
    layers: list[nn.Module] = [nn.Flatten()]
    for before, after in itertools.pairwise(widths):
        layers += [nn.Linear(before, after), nn.LeakyReLU(0.2)]
    return Network(*layers, nn.Linear(widths[-1], 2))


@torch.no_grad()
def initialise(module: nn.Module, init: str, generator: torch.Generator) -> None:
    """Set all convolutions and linear layers.

    init: "normal", weights N(0, 0.02**2) and biases 0; or "fan_in", both uniform on +-1/sqrt(numbers that
    enter an output), which is how PyTorch makes its layers.
    """
    for part in module.modules():
        if not isinstance(part, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            continue
        assert part.bias is not None
        if init == "normal":
            part.weight.normal_(0, 0.02, generator=generator)
            part.bias.zero_()
        else:
            bound = part.weight[0].numel() ** -0.5
            part.weight.uniform_(-bound, bound, generator=generator)
            part.bias.uniform_(-bound, bound, generator=generator)


class Repeat(nn.Module):
    """Every pixel 2x2: (batch, channels, H, W) -> (batch, channels, 2 H, 2 W)."""

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        if not torch.compiler.is_compiling():
            return F.interpolate(x, scale_factor=2)
        # PyTorch 2.13 (not 2.14.1), compiling for a CPU in bfloat16, makes the gradient of interpolate 0.
        batch, channels, height, width = x.shape
        repeated = x[:, :, :, None, :, None].expand(batch, channels, height, 2, width, 2)
        return repeated.reshape(batch, channels, 2 * height, 2 * width)


class ResidualBlock(nn.Module):
    """path(x) + residual(x) / 36: four times ReLU and convolution, through a quarter of the channels.

    path is the identity, or a 1x1 convolution where the number of channels changes; 36 is the square of the
    number of blocks. After the dVAE of DALL-E (Ramesh et al., ICML 2021).

    upsample: of x with every pixel repeated 2x2. That is done after the first convolutions, whose kernels
    must be 1x1: they give the same numbers at a quarter of the cost.
    """

    def __init__(
        self, before: int, after: int, kernels: tuple[int, int, int, int], *, upsample: bool = False
    ) -> None:
        super().__init__()
        hidden = after // 4
        widths = (before, hidden, hidden, hidden, after)
        larger = [Repeat()] if upsample else []
        layers: list[nn.Module] = []
        for kernel, i, o in zip(kernels, widths, widths[1:], strict=False):
            layers += [nn.ReLU(), nn.Conv2d(i, o, kernel, padding=kernel // 2)]
            layers += larger if len(layers) == 2 else []
        self.residual = nn.Sequential(*layers)
        self.path = nn.Sequential(*([] if before == after else [nn.Conv2d(before, after, 1)]), *larger)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, before, H, W) -> (batch, after, H, W), or twice as high and wide."""
        return torch.add(self.path(x), self.residual(x), alpha=(_GROUPS * _BLOCKS) ** -2)


def _groups(widths: tuple[int, ...], kernels: tuple[int, int, int, int], *, upward: bool) -> list[nn.Module]:
    """Groups of blocks that lead from widths[0] channels to each of the others, twice or half the size."""
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        later = bool(layers)
        if later and not upward:
            layers.append(nn.MaxPool2d(2))
        layers.append(ResidualBlock(before, after, kernels, upsample=later and upward))
        layers += [ResidualBlock(after, after, kernels) for _ in range(_BLOCKS - 1)]
    return layers


def _between_relus(layers: list[nn.Module]) -> list[nn.Module]:
    """The layers with a ReLU after all but the last."""
    return [part for layer in layers for part in (layer, nn.ReLU())][:-1]


def _smallest_size(config: NetworkConfig, image_size: int) -> int:
    """Height and width of the smallest feature map."""
    factor = 8 if config.kind == "light" else 4
    if image_size < factor or image_size % factor:
        raise ConfigError(
            f"the size of an image must be a multiple of {factor} for the {config.kind} network, "
            f"but was {image_size}; images of one's own can be resized: data.resize=true "
            f"data.size={max(factor, round(image_size / factor) * factor)}"
        )
    return image_size // factor
