"""How many bits a scalar that becomes the index of a code can carry."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# In units of 1 / sqrt(precision): how far z may go beyond the outermost codes, and how close values of z
# between the codes need be.
_REACH = 50.0
_RESOLUTION = 0.02
_BETWEEN = 256
_BEYOND = 100
# The capacity is found within so many nats, or as close as so many steps come.
_TOLERANCE = 1e-4
_STEPS = 20_000


def capacity(codes: Tensor, precision: float) -> float:
    """The capacity in bits of the channel z -> index with P(k | z) = softmax_k(-precision (z - codes[k])**2).

    It is the largest mutual information over all distributions of z on a grid that reaches
    50 / sqrt(precision) beyond the outermost codes, by the iteration of Blahut and of Arimoto (IEEE Trans.
    Inf. Theory 18, 1972) in float64. NaN where a code is not finite.

    codes: (K,).
    """
    scaled = codes.detach().to("cpu", torch.float64).sort().values * math.sqrt(precision)
    if not bool(scaled.isfinite().all()):
        return math.nan
    channel = _channel(_grid(scaled), scaled)
    negative_entropy = -torch.special.entr(channel).sum(-1)
    log_input = torch.full(channel.shape[:1], -math.log(channel.shape[0]), dtype=torch.float64, device="cpu")

    def evaluate(log_input: Tensor) -> tuple[Tensor, float]:
        """The divergence of P(. | z) from the index's distribution for each z; its mean, the information."""
        index = log_input.exp() @ channel
        # A code that no z reaches has probability 0 in both factors.
        divergence = negative_entropy - channel @ index.clamp(min=torch.finfo(index.dtype).tiny).log()
        return divergence, float(log_input.exp() @ divergence)

    divergence, information = evaluate(log_input)
    # The step of Blahut and Arimoto has exponent 1 and never loses; longer ones are taken while they gain.
    exponent = 1.0
    for _ in range(_STEPS):
        # The capacity lies between the two.
        if float(divergence.max()) - information < _TOLERANCE:
            break
        stepped = (log_input + exponent * divergence).log_softmax(0)
        next_divergence, next_information = evaluate(stepped)
        if next_information < information and exponent > 1:
            exponent = max(1.0, exponent / 4)
            continue
        exponent *= 1.3
        log_input, divergence, information = stepped, next_divergence, next_information
    return max(information, 0.0) / math.log(2)


def _grid(codes: Tensor) -> Tensor:
    """Values of z: the codes, the points between them, and both sides as far as _REACH. codes are sorted."""
    low, high = codes[0], codes[-1]
    between = torch.lerp(low, high, torch.linspace(0, 1, _BETWEEN, dtype=torch.float64, device="cpu"))
    inner = torch.cat((codes, (codes[1:] + codes[:-1]) / 2, between)).sort().values
    # One value from each interval of the resolution, unless they are further apart.
    interval = ((inner - low) / _RESOLUTION).floor()
    inner = inner[torch.cat((interval.new_ones(1), interval.diff())) > 0]
    beyond = torch.logspace(-2, math.log10(_REACH), _BEYOND, dtype=torch.float64, device="cpu")
    return torch.cat((inner, low - beyond, high + beyond))


def _channel(z: Tensor, codes: Tensor) -> Tensor:
    """P(k | z), (len(z), K), by logits relative to the nearest code, which lose no digits far away."""
    nearest = codes[(z.unsqueeze(-1) - codes).abs().argmin(-1)].unsqueeze(-1)
    step = codes - nearest
    return torch.softmax(2 * step * (z.unsqueeze(-1) - nearest - step / 2), -1)
