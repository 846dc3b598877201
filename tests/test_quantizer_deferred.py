"""A quantizer made on the device "meta", and only then given memory and values, is the one made at once."""

import copy

import pytest
import torch

from fqvae_kernels import GumbelVectorQuantizer, ScalarQuantizer, TemperatureSchedule

OPTIONS = {
    "plain": {},
    "levels": {"levels": [8, 5, 5]},
    "sorted levels": {"levels": [8, 5, 5], "sorted": True},
    "precisions": {"num_codebooks": 3, "precision": [1.0, 4.0, 16.0]},
    "learned precision": {"precision": 16.0, "learn_precision": True},
    "learned precisions": {"num_codebooks": 3, "precision": [1.0, 4.0, 16.0], "learn_precision": True},
    "learned temperature": {"temperature": 0.5, "learn_temperature": True},
    "schedule": {"temperature": TemperatureSchedule(1.0, 0.1, 10)},
    "buffer": {"temperature": torch.tensor(0.5)},
    "data": {"init": "data"},
    "revival": {"revive_after": 3},
    "projection": {"dim": 4, "num_latents": 3},
}


def make(name):
    options = copy.deepcopy(OPTIONS[name])
    if "levels" not in options:
        options["codebook_size"] = 8
    torch.manual_seed(1)
    return ScalarQuantizer(**options)


def empty(name):
    """One whose memory was never written: NaN, or the largest integer."""
    return make(name).to("meta").to_empty(device="cpu")


def results(q):
    torch.manual_seed(2)
    z = torch.randn(6, 4 if q.dim is not None else 3)
    out = q(z, seed=3)
    return [out.quantized, out.indices, out.kl, q.eval()(z).quantized]


@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("name", OPTIONS)
def test_loaded(name, assign):
    trained = make(name)
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.add_(0.25)
    state = copy.deepcopy(trained.state_dict())
    loaded = make(name).to("meta") if assign else empty(name)
    loaded.load_state_dict(state, assign=assign)
    for got, true in zip(results(loaded), results(trained), strict=True):
        assert torch.equal(got, true)


@pytest.mark.parametrize("name", OPTIONS)
def test_reset(name):
    once, again = make(name), empty(name)
    torch.manual_seed(4)
    once.reset_parameters()
    torch.manual_seed(4)
    for module in again.modules():
        if hasattr(module, "reset_parameters") and module is not again:
            module.reset_parameters()
    torch.manual_seed(4)
    again.reset_parameters()
    if once.project_in is not None:  # two torch.nn.Linear, whose values are PyTorch's affair
        again.load_state_dict(once.state_dict())
    for got, true in zip(results(again), results(once), strict=True):
        assert torch.equal(got, true)


def test_a_precision_is_what_was_given_after_half_and_back():
    q = ScalarQuantizer(4, num_codebooks=2, precision=[1 / 3, 2.0]).half().double()
    assert q.precision.tolist() == [1 / 3, 2.0]


def test_made_under_another_default_device():
    """Of a module on the CPU nothing goes to the default device; "meta" stands for a GPU."""
    with torch.device("cpu"):
        q = ScalarQuantizer(levels=[8, 5, 5], revive_after=1)
        one = ScalarQuantizer(8, init="data")
    z = torch.linspace(-1, 1, 30).reshape(10, 3)
    with torch.device("meta"):
        q(z, seed=torch.tensor(1, device="cpu"))
        q(z, seed=1)
        assert q.capacity().isfinite().all() and q.revival.calls == 2
        one(z, seed=1)
        one.init_from(z)
    assert one.data_start.done.all()


@pytest.mark.parametrize("learn", [False, True])
def test_a_vector_quantizer(learn):
    options = {"temperature": torch.tensor(0.5)} | ({"learn_temperature": True} if learn else {})
    q = GumbelVectorQuantizer(None, 5, 4, num_codebooks=2, **options).to("meta").to_empty(device="cpu")
    q.reset_parameters()
    assert q.temperature.item() == pytest.approx(0.5)
    assert q(torch.randn(3, 10)).quantized.isfinite().all()


def test_loaded_codes_do_not_start_from_data():
    """Of a checkpoint that does not say what has started, as one made without init="data"."""
    codes = torch.tensor([1.0, 2.0, 3.0])
    q = ScalarQuantizer(3, init="data")
    q.load_state_dict({"codebook": codes}, strict=False)
    q(torch.randn(50, 1) + 40)
    assert torch.equal(q.codebook, codes)
    other = ScalarQuantizer(3, init="data")
    other.load_state_dict({}, strict=False)  # nothing comes from elsewhere: it starts
    other(torch.randn(50, 1) + 40)
    assert (other.codebook > 30).all()


def test_averaged():
    q = ScalarQuantizer(3, init="data", revive_after=2)
    averaged = torch.optim.swa_utils.AveragedModel(q, use_buffers=True)
    for _ in range(3):
        q(torch.randn(20, 1))
        averaged.update_parameters(q)
    assert averaged.module.codebook.isfinite().all()
