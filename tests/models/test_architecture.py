"""Networks: numbers of parameters, initial weights, the residual block, sizes that do not fit."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from fqvae.models import (
    Autoencoder,
    ConfigError,
    DiscriminatorConfig,
    LatentConfig,
    ModelConfig,
    NetworkConfig,
    WeightsConfig,
)
from fqvae.models.networks import ResidualBlock, build_decoder, build_discriminator, build_encoder, initialise

LIGHT = NetworkConfig("light", channels=16, hidden=128, init="fan_in")


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_official_network_has_the_published_numbers_of_parameters():
    model = Autoencoder(ModelConfig(), 64)
    assert count(model.encoder) == 19_092_556
    assert count(model.decoder) == 2_871_619
    assert count(model.latent) == 64
    assert count(build_discriminator(DiscriminatorConfig(), model.latent.discriminator_width)) == 4_775_002


def test_light_network_is_strided_convolutions_and_one_dense_layer():
    channels = (3, 16, 32, 64)
    convolutions = sum(16 * i * o + o for i, o in itertools.pairwise(channels))
    encoder = convolutions + (64 * 4 * 4 * 128 + 128) + (128 * 12 + 12)
    assert count(build_encoder(LIGHT, 32, 12)) == encoder
    deconvolutions = sum(16 * i * o + o for i, o in itertools.pairwise(channels[::-1]))
    decoder = (12 * 128 + 128) + (128 * 1024 + 1024) + deconvolutions
    assert count(build_decoder(LIGHT, 32, 12)) == decoder


@pytest.mark.parametrize(("network", "size"), [(NetworkConfig(channels=8), 64), (LIGHT, 64), (LIGHT, 32)])
def test_shapes(network, size):
    images = torch.rand(2, 3, size, size) - 0.5
    head = build_encoder(network, size, 7)(images)
    assert head.shape == (2, 7)
    assert build_decoder(network, size, 7)(head).shape == images.shape


def test_official_feature_maps_have_full_half_and_quarter_resolution():
    shapes = []
    encoder = build_encoder(NetworkConfig(channels=8), 32, 4)
    for block in encoder.modules():
        if isinstance(block, ResidualBlock):
            block.register_forward_hook(lambda module, inputs, output: shapes.append(tuple(output.shape[1:])))
    encoder(torch.zeros(1, 3, 32, 32))
    assert shapes == [(8, 32, 32)] * 2 + [(16, 16, 16)] * 2 + [(32, 8, 8)] * 2


@pytest.mark.parametrize(
    ("before", "after", "upsample"), [(8, 16, False), (16, 16, False), (16, 8, True), (8, 8, True)]
)
def test_residual_block_is_its_formula(before, after, upsample):
    block = ResidualBlock(
        before, after, (1, 3, 3, 3) if upsample else (3, 3, 3, 1), upsample=upsample
    ).double()
    x = torch.randn(2, before, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = enlarged = x.repeat_interleave(2, 2).repeat_interleave(2, 3) if upsample else x
    for layer in block.residual:
        if isinstance(layer, torch.nn.Conv2d):
            y = F.conv2d(y.clamp(min=0), layer.weight, layer.bias, padding=layer.weight.shape[-1] // 2)
    path = enlarged if before == after else F.conv2d(enlarged, block.path[0].weight, block.path[0].bias)
    torch.testing.assert_close(block(x), path + y / 36, rtol=1e-12, atol=1e-12)


def test_official_initial_weights_are_normal_with_deviation_002():
    model = Autoencoder(ModelConfig(NetworkConfig(channels=16)), 32)
    for name, parameter in [*model.encoder.named_parameters(), *model.decoder.named_parameters()]:
        if name.endswith("bias"):
            assert not parameter.any(), name
        else:
            expected = 5 * 0.02 / parameter.numel() ** 0.5
            assert abs(parameter.mean().item()) < expected, name
            assert abs(parameter.std().item() - 0.02) < expected, name
    assert Autoencoder(ModelConfig(LIGHT, LatentConfig(codebook_size=4096)), 32).latent.codebook.std() > 0.95


def test_fan_in_is_what_pytorch_does():
    """Same bounds as PyTorch's own layers: their largest weights lie just below 1/sqrt(fan_in)."""
    for make in (
        lambda: torch.nn.Linear(300, 200),
        lambda: torch.nn.Conv2d(20, 30, 4),
        lambda: torch.nn.ConvTranspose2d(30, 20, 4),
    ):
        theirs, ours = make(), make()
        initialise(ours, "fan_in", torch.Generator().manual_seed(0))
        largest = theirs.weight.abs().max().item()
        assert ours.weight.abs().max().item() == pytest.approx(largest, rel=2e-3)
        assert ours.weight.std().item() == pytest.approx(theirs.weight.std().item(), rel=0.02)
        assert 0 < ours.bias.abs().max().item() <= largest * 1.01


def test_the_seed_alone_decides_the_weights():
    config = ModelConfig(LIGHT)
    torch.manual_seed(1)
    first = Autoencoder(config, 32, seed=5).state_dict()
    torch.manual_seed(2)
    second = Autoencoder(config, 32, seed=5).state_dict()
    third = Autoencoder(config, 32, seed=6).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["encoder.0.weight"], third["encoder.0.weight"])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: build_encoder(LIGHT, 36, 4), "multiple of 8 for the light network, but was 36"),
        (lambda: build_decoder(NetworkConfig(), 30, 4), "multiple of 4 for the official network, but was 30"),
        (lambda: NetworkConfig(channels=6), "network.channels must be a multiple of 4"),
        (lambda: NetworkConfig(hidden=0), "network.hidden must be finite and at least 1, but was 0"),
        (lambda: LatentConfig(size=0), "latent.size must be finite and at least 1"),
        (lambda: LatentConfig(dimension=2), "latent.dimension must be 1 unless"),
        (lambda: LatentConfig(precision=0), "latent.precision must be finite and above 0, but was 0"),
        (lambda: LatentConfig(precision=float("nan")), "latent.precision must be finite"),
        (lambda: LatentConfig("logits", precision=2.0), "latent.precision must be 1.0 for the kind 'logits'"),
        (
            lambda: LatentConfig(estimator="nearest", learn_precision=True),
            "latent.learn_precision must be False .* estimator 'nearest', but was True",
        ),
        (lambda: LatentConfig("vector", sorted=True), "latent.sorted must be False for the kind 'vector'"),
        (
            lambda: LatentConfig("gaussian", sorted=True),
            "latent.sorted must be False .* 'gaussian', but was",
        ),
        (
            lambda: LatentConfig("logits", estimator="nearest"),
            "latent.estimator cannot be 'nearest' for the kind 'logits'",
        ),
        (lambda: LatentConfig("vector", codebooks="per_latent"), "latent.codebooks must be 'shared'"),
        (lambda: LatentConfig("vector", init="linspace"), "latent.init must be 'normal'"),
        (lambda: WeightsConfig(kl=-1.0), "weights.kl must be finite and at least 0, but was -1.0"),
        (lambda: WeightsConfig(kl=float("nan")), "weights.kl must be finite"),
        (
            lambda: ModelConfig(latent=LatentConfig("plain"), weights=WeightsConfig(kl=1.0)),
            "weights.kl must be 0 for a 'plain' latent .* can have total_correlation, nonnegativity",
        ),
        (
            lambda: ModelConfig(
                latent=LatentConfig(estimator="nearest"), weights=WeightsConfig(total_correlation=1.0)
            ),
            "weights.total_correlation must be 0",
        ),
    ],
)
def test_what_does_not_go_together_is_named(make, words):
    with pytest.raises(ConfigError, match=words):
        make()
