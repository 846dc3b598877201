"""--fast: what it chooses, and that it computes the same within its precision."""

import copy

import pytest
import torch
from blobruns import run, tiny

from fqvae.models import NetworkConfig
from fqvae.models.networks import build_decoder, build_encoder, initialise
from fqvae.training.fast import Fast, choose_fast

OFFICIAL, LIGHT = NetworkConfig(), NetworkConfig("light")


def test_what_is_chosen(monkeypatch):
    monkeypatch.setattr("fqvae.training.fast.has_bfloat16", lambda cuda: cuda)
    assert choose_fast("off", OFFICIAL, cuda=True) == choose_fast("off", LIGHT, cuda=False) == Fast()
    for network in (OFFICIAL, LIGHT):
        assert choose_fast("auto", network, cuda=False) == Fast(channels_last=True)
        assert choose_fast("auto", network, cuda=True) == Fast(True, True, True)
    assert choose_fast("on", OFFICIAL, cuda=False) == Fast(False, True, True)
    assert choose_fast("on", LIGHT, cuda=False) == Fast(False, True, False)


def losses(folder, fast, *overrides):
    outcome = run(folder, tiny("factorqvae", "steps=3", *overrides), fast=fast)
    weights = torch.load(folder / "last.ckpt", weights_only=True)["state_dict"]
    return outcome.losses, weights


def test_channels_last_changes_rounding_only(tmp_path):
    pytest.importorskip("lightning")
    plain, weights = losses(tmp_path / "plain", "off")
    fast, fast_weights = losses(tmp_path / "fast", "auto")
    assert fast == pytest.approx(plain, rel=1e-4)
    assert fast_weights["autoencoder.encoder.2.weight"].is_contiguous(memory_format=torch.channels_last)
    assert weights.keys() == fast_weights.keys()


# PyTorch's own: its compiler imports old code, and looks at the gradients of inputs that have none.
of_compiling = pytest.mark.filterwarnings(
    "ignore:`torch.jit.script_method` is deprecated:DeprecationWarning",
    "ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning",
)


@pytest.mark.slow
@of_compiling
@pytest.mark.parametrize("build", [build_encoder, build_decoder])
def test_no_gradient_is_lost(build):
    """Each parameter's gradient, compiled and in bfloat16: near the plain one, where a lost one is 0."""
    network = build(NetworkConfig(channels=32), 32, 12)
    initialise(network, "fan_in", torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    x = torch.randn((8, 3, 32, 32) if build is build_encoder else (8, 12), generator=generator)
    gradients = []
    for fast in (Fast(), Fast(bfloat16=True, channels_last=True, compile=True)):
        copied = copy.deepcopy(network)
        fast.prepare([copied])
        with torch.autocast("cpu", torch.bfloat16, enabled=fast.bfloat16):
            out = copied(x)
        out.float().square().sum().backward()
        gradients.append({name: each.grad for name, each in copied.named_parameters()})
    for name, plain in gradients[0].items():
        assert (gradients[1][name] - plain).norm() < 0.5 * plain.norm(), name


@pytest.mark.slow
@of_compiling
def test_everything_at_once(tmp_path):
    """The official network, compiled, in bfloat16 where there is any."""
    network = ("model.network.kind=official", "model.network.channels=8")
    plain, weights = losses(tmp_path / "plain", "off", *network)
    fast, fast_weights = losses(tmp_path / "fast", "on", *network)
    assert fast["reconstruction"] == pytest.approx(plain["reconstruction"], rel=0.02)
    assert fast["kl"] == pytest.approx(plain["kl"], rel=0.05)
    assert weights.keys() == fast_weights.keys()
    assert all(value.dtype == torch.float32 for value in fast_weights.values())
