"""Which decoders a page runs itself, and with which numbers; Chromium runs them in test_report_browser.py."""

import base64

import numpy as np
import pytest
import torch
from torch import nn

from fqvae.models import to_uint8
from fqvae.models.networks import Network
from fqvae.report.decoder import UnsuitedError, export_decoder


def decoder(kind=Network, *, middle=None, hidden=16):
    torch.manual_seed(3)
    layers = [
        nn.Linear(4, hidden),
        nn.ReLU(),
        nn.Linear(hidden, 8 * 16),
        nn.ReLU(),
        nn.Unflatten(1, (8, 4, 4)),
    ]
    return kind(*layers, *([] if middle is None else [middle]), nn.ConvTranspose2d(8, 3, 4, 2, 1))


def export(model, budget=10**7, scale=1.0):
    inputs = scale * torch.randn(20, 4, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        return export_decoder(model, inputs, to_uint8(model(inputs)), budget)


def test_layers_and_weights():
    model = decoder()
    found = export(model)
    assert found["bits"] == 16
    assert found["layers"] == [
        {"kind": "linear", "inputs": 4, "outputs": 16, "relu": True},
        {"kind": "linear", "inputs": 16, "outputs": 128, "relu": True},
        {"kind": "convolution", "inputs": 8, "outputs": 3, "size": 4, "relu": False},
    ]
    numbers = np.frombuffer(base64.b64decode(found["weights"]), "<f2")
    expected = torch.cat([each.detach().flatten() for each in model.parameters()]).numpy()
    np.testing.assert_array_equal(numbers, expected.astype(np.float16))


def test_single_precision_where_half_is_too_coarse():
    model = decoder()
    with torch.no_grad():  # the same function; the first numbers are too large for 16 bits
        model[0].weight.mul_(2.0**20)
        model[0].bias.mul_(2.0**20)
        model[2].weight.mul_(2.0**-20)
    found = export(model)
    assert found["bits"] == 32
    numbers = np.frombuffer(base64.b64decode(found["weights"]), "<f4")
    assert numbers[0] == model[0].weight[0, 0].item()


class Other(nn.Sequential):
    def forward(self, x):
        return -super().forward(x)


@pytest.mark.parametrize(
    ("model", "options", "words"),
    [
        (decoder(Other), {}, "of the kind Other"),
        (decoder(middle=nn.Sigmoid()), {}, "with the layer Sigmoid"),
        (decoder(middle=nn.ConvTranspose2d(8, 8, 4, 1, 1)), {}, "with the layer ConvTranspose2d"),
        (decoder(middle=nn.ConvTranspose2d(8, 8, 4, 2, 1, groups=2)), {}, "with the layer ConvTranspose2d"),
        (nn.Sequential(nn.Linear(4, 3)), {}, "does not end with a convolution"),
        (decoder(), {"budget": 100}, "weights take 0.0 MB, more than fits"),
    ],
)
def test_decoders_that_a_page_cannot_run(model, options, words):
    with pytest.raises(UnsuitedError, match=words):
        export(model, **options)


def test_too_many_multiplications(monkeypatch):
    monkeypatch.setattr("fqvae.report.decoder.MOST_PRODUCTS", 4 * 16 + 16 * 128 + 8 * 3 * 16 * 16)
    export(decoder())
    with pytest.raises(UnsuitedError, match="takes 0 million multiplications for an image"):
        export(decoder(hidden=17))


def test_images_of_other_layers():
    model = decoder()
    with pytest.raises(UnsuitedError, match="not those of its layers"):
        export_decoder(model, torch.zeros(2, 4), torch.full((2, 3, 8, 8), 255, dtype=torch.uint8), 10**7)
