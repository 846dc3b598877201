"""ScalarQuantizer through safetensors, as Hugging Face's save_pretrained stores a model."""

import pytest
import torch

from fqvae_kernels import ScalarQuantizer

safetensors = pytest.importorskip("safetensors.torch")

SETTINGS = {
    "plain": {},
    "per latent": {"num_codebooks": 3},
    "sorted": {"sorted": True},
    "learned precision": {"sorted": True, "learn_precision": True, "precision": 2.0},
    "precision per codebook": {"num_codebooks": 3, "learn_precision": True, "precision": [0.5, 1.0, 2.0]},
    "nearest": {"estimator": "nearest", "codebook_weight": 0.1},
}


def make(settings):
    return torch.nn.Sequential(torch.nn.Linear(4, 3), ScalarQuantizer(16, kl_weight=0.2, **settings))


@pytest.mark.parametrize("name", SETTINGS)
def test_what_is_loaded_gives_the_same_outputs(name, tmp_path):
    torch.manual_seed(0)
    saved, loaded = make(SETTINGS[name]), make(SETTINGS[name])
    with torch.no_grad():  # as training leaves them
        for parameter in saved.parameters():
            parameter.add_(0.1 * torch.rand_like(parameter))
    safetensors.save_model(saved, tmp_path / "model.safetensors")
    missing, unexpected = safetensors.load_model(loaded, tmp_path / "model.safetensors")
    assert (list(missing), list(unexpected)) == ([], [])
    x = torch.randn(20, 4)
    for training in (True, False):
        outputs = []
        for model in (saved, loaded):
            model.train(training)
            torch.manual_seed(7)  # of the samples
            outputs.append(model(x))
        for one, other in zip(*(out[:3] for out in map(tuple, outputs)), strict=True):
            assert torch.equal(one, other)
    assert torch.equal(saved[1].codes(outputs[0].indices), loaded[1].codes(outputs[0].indices))


def test_the_half_that_is_loaded_is_the_half_that_was_saved(tmp_path):
    saved, loaded = make({}).to(torch.bfloat16), make({}).to(torch.bfloat16)
    safetensors.save_model(saved, tmp_path / "model.safetensors")
    safetensors.load_model(loaded, tmp_path / "model.safetensors")
    assert loaded[1].codebook.dtype == torch.bfloat16
    assert torch.equal(loaded[1].codebook, saved[1].codebook)
