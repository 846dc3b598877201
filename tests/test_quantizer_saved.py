"""ScalarQuantizer through safetensors, as Hugging Face's save_pretrained stores a model."""

import importlib.util

import pytest
import torch

from fqvae_kernels import GumbelVectorQuantizer, ScalarQuantizer

needs_safetensors = pytest.mark.skipif(
    importlib.util.find_spec("safetensors") is None, reason="needs safetensors"
)

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


@needs_safetensors
@pytest.mark.parametrize("name", SETTINGS)
def test_what_is_loaded_gives_the_same_outputs(name, tmp_path):
    import safetensors.torch as safetensors

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


@needs_safetensors
def test_the_half_that_is_loaded_is_the_half_that_was_saved(tmp_path):
    import safetensors.torch as safetensors

    saved, loaded = make({}).to(torch.bfloat16), make({}).to(torch.bfloat16)
    safetensors.save_model(saved, tmp_path / "model.safetensors")
    safetensors.load_model(loaded, tmp_path / "model.safetensors")
    assert loaded[1].codebook.dtype == torch.bfloat16
    assert torch.equal(loaded[1].codebook, saved[1].codebook)


OLD = {
    "scalar": lambda: ScalarQuantizer(6, learn_precision=True, learn_temperature=True),
    "vector": lambda: GumbelVectorQuantizer(4, 6, 2, learn_temperature=True),
}


@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("name", OLD)
def test_logarithms_that_were_saved_as_0d_load(name, assign):
    """As editions before FSDP2's refusal of 0-d parameters saved them."""
    model = torch.nn.Sequential(OLD[name]())
    (q,) = model
    logarithms = [key for key in model.state_dict() if "log_" in key]
    assert len(logarithms) == (2 if name == "scalar" else 1)
    assert all(model.state_dict()[key].shape == (1,) for key in logarithms)
    saved = model.state_dict() | {key: torch.tensor(0.25 * i) for i, key in enumerate(logarithms, 1)}
    keys = model.load_state_dict(saved, assign=assign)
    assert not keys.missing_keys and not keys.unexpected_keys
    assert all(saved[key].dim() == 0 for key in logarithms)
    assert all(parameter.dim() > 0 for parameter in model.parameters())
    values = [q.precision, q.temperature] if name == "scalar" else [q.temperature]
    expected = [torch.tensor(0.25 * i).exp() for i in range(1, 1 + len(values))]
    torch.testing.assert_close([value.detach() for value in values], expected)
    wrong = model.state_dict() | {logarithms[0]: torch.zeros(2)}
    with pytest.raises(RuntimeError, match=r"size mismatch for 0\.log_"):
        model.load_state_dict(wrong)


@pytest.mark.parametrize("sorted", [False, True])
def test_codes_that_are_given_on_the_meta_device(sorted):
    """Where only shapes are wanted there are no values to check."""
    with torch.device("meta"):
        q = ScalarQuantizer(4, init=torch.empty(4), sorted=sorted)
    assert [parameter.shape for parameter in q.parameters()] == [(4,)]
    assert all(parameter.is_meta for parameter in q.parameters())
