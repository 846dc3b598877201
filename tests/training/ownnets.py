"""Networks of one's own for the tests, which name them as ownnets:NAME."""

import torch
from torch import nn


def small(image_shape, head_width, decoder_width, config):
    """Linear layers, with PyTorch's own initial weights; and a lazy one."""
    count = image_shape[0] * image_shape[1] * image_shape[2]
    encoder = nn.Sequential(
        nn.Flatten(), nn.LazyLinear(config.hidden), nn.Tanh(), nn.Linear(config.hidden, head_width)
    )
    decoder = nn.Sequential(nn.Linear(decoder_width, count), nn.Unflatten(1, image_shape))
    return encoder, decoder


def narrow(image_shape, head_width, decoder_width, config):
    encoder, decoder = small(image_shape, head_width + 1, decoder_width, config)
    return encoder, decoder


def one_channel(image_shape, head_width, decoder_width, config):
    encoder, decoder = small(image_shape, head_width, decoder_width, config)
    return encoder, nn.Sequential(decoder, nn.Conv2d(image_shape[0], 1, 1))


def alone(image_shape, head_width, decoder_width, config):
    return small(image_shape, head_width, decoder_width, config)[0]


def other_input(image_shape, head_width, decoder_width, config):
    return nn.Linear(7, head_width), small(image_shape, head_width, decoder_width, config)[1]


class Integers(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.width = width

    def forward(self, x):
        return torch.zeros(len(x), self.width, dtype=torch.int64)


def whole_numbers(image_shape, head_width, decoder_width, config):
    return Integers(head_width), small(image_shape, head_width, decoder_width, config)[1]


def failing(image_shape, head_width, decoder_width, config):
    raise KeyError("no such\nthing")


nothing = 5
