"""--fast: what it chooses, and that it computes the same within its precision."""

import pytest
import torch
from blobruns import run, tiny

from fqvae.models import NetworkConfig
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


@pytest.mark.slow
# PyTorch's own: its compiler imports old code, and looks at the gradients of inputs that have none.
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_everything_at_once(tmp_path):
    """The official network, compiled, in bfloat16 where there is any."""
    network = ("model.network.kind=official", "model.network.channels=8")
    plain, weights = losses(tmp_path / "plain", "off", *network)
    fast, fast_weights = losses(tmp_path / "fast", "on", *network)
    assert fast["reconstruction"] == pytest.approx(plain["reconstruction"], rel=0.02)
    assert fast["kl"] == pytest.approx(plain["kl"], rel=0.05)
    assert weights.keys() == fast_weights.keys()
    assert all(value.dtype == torch.float32 for value in fast_weights.values())
