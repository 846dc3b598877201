"""Networks of one's own: made from a name, tried at once, kept in the run, weights a function of the seed."""

import sys

import ownnets
import pytest
import torch
from blobruns import run, tiny
from blobset import BlobSet

import fqvae
from fqvae.cli import main
from fqvae.models import Autoencoder, ConfigError, NetworkConfig, own_networks
from fqvae.runs import load_preset, read_checkpoint, to_flat

KIND = "model.network.kind=ownnets:"


def make(name, model="qvae", seed=0):
    config = load_preset("smoke", model, [f"{KIND}{name}", "model.network.hidden=6", "model.latent.size=5"])
    return Autoencoder(config.model, 16, channels=1, seed=seed)


@pytest.mark.parametrize(("model", "head"), [("qvae", 5), ("vae", 10), ("dvae", 5 * 64)])
def test_the_function_is_told_the_shapes(model, head, monkeypatch):
    told = []

    def spy(*arguments):
        told.append(arguments)
        return ownnets.small(*arguments)

    monkeypatch.setattr(ownnets, "spy", spy, raising=False)
    made = make("spy", model)
    (shape, head_width, decoder_width, config) = told[0]
    assert (shape, head_width, decoder_width, config.hidden) == ((1, 16, 16), head, 5, 6)
    assert made(torch.zeros(3, 1, 16, 16)).shape == (3, 1, 16, 16)
    assert made.encoder.training and made.decoder.training


def test_weights_are_a_function_of_the_seed_and_pytorchs_generator_is_left_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = make("small", seed=3).state_dict()
    assert torch.equal(torch.rand(3), expected)
    again, other = make("small", seed=3).state_dict(), make("small", seed=4).state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not any(torch.equal(first[key], other[key]) for key in first)
    # The weights are the function's own, not set anew as for the other networks: uniform on +-1/sqrt(inputs).
    bound = 256**-0.5
    assert 0.9 * bound < first["encoder.1.weight"].abs().max() <= bound


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "narrow",
            r"encoder of 'ownnets:narrow' must give shape \(2, 5\) for .*\(2, 1, 16, 16\), but gave \(2, 6\)",
        ),
        (
            "one_channel",
            r"decoder .* must give shape \(2, 3, 16, 16\) for .* \(2, 5\), but gave \(2, 1, 16, 16\)",
        ),
        ("alone", "must give two modules, encoder and decoder, but gave Sequential"),
        ("other_input", r"encoder .* must give shape \(2, 5\) .*, but fails: RuntimeError: mat1 and mat2"),
        ("whole_numbers", r"encoder .* must give floating-point numbers, but gave torch.int64"),
        ("failing", r"network 'ownnets:failing' cannot be made: KeyError: 'no such\\nthing'"),
        ("nothing", "which must be a function, but is 5"),
        ("missing", "which cannot be imported: AttributeError: .* has no attribute 'missing'"),
    ],
)
def test_what_is_wrong_is_known_at_once_and_in_one_line(name, words):
    config = load_preset("smoke", "qvae", [f"{KIND}{name}", "model.latent.size=5"])
    with pytest.raises(ConfigError, match=words) as error:
        Autoencoder(config.model, 16, channels=1 if name != "one_channel" else 3)
    assert "\n" not in str(error.value)


def test_names():
    with pytest.raises(
        ConfigError, match=r"network.kind must be one of official, light.*, but was 'offical'"
    ):
        NetworkConfig("offical")
    for bad in ("a:", ":b", "a:b:c", "a b:c", "a/b:c"):
        with pytest.raises(ConfigError, match=r"network\.kind must be"):
            NetworkConfig(bad)


@pytest.fixture
def registry(monkeypatch):
    monkeypatch.setattr(own_networks, "_registered", {})


def test_the_decorator(registry):
    fqvae.network("mine")(ownnets.small)
    assert NetworkConfig("mine").kind == "ownnets:small"  # so that a later process finds it

    def local(image_shape, head_width, decoder_width, config):
        return ownnets.small(image_shape, head_width, decoder_width, config)

    assert fqvae.network("local")(local) is local
    config = load_preset("smoke", "qvae", ["model.network.kind=local"])
    assert config.model.network.kind == "local"  # a function in a function cannot be imported
    assert Autoencoder(config.model, 16)(torch.zeros(1, 3, 16, 16)).shape == (1, 3, 16, 16)
    with pytest.raises(ValueError, match="there is a network 'mine' already"):
        fqvae.network("mine")(local)
    with pytest.raises(ValueError, match="there is a network 'light' already"):
        fqvae.network("light")(local)
    with pytest.raises(ValueError, match="must be letters, digits"):
        fqvae.network("a:b")
    own_networks._registered.clear()
    with pytest.raises(ConfigError, match="no function is registered by that name: import the module"):
        Autoencoder(config.model, 16)


def test_a_run_keeps_its_network_by_name(tmp_path, monkeypatch):
    pytest.importorskip("lightning")
    config = tiny("factorqvae", f"{KIND}small", "steps=5")
    run(tmp_path / "run", config)
    assert to_flat(read_checkpoint(tmp_path / "run").config)["model.network.kind"] == "ownnets:small"
    model = fqvae.load(tmp_path / "run")
    assert model.encode(BlobSet().images([0, 1])).shape == (2, 4)
    run(tmp_path / "again", config)
    again = fqvae.load(tmp_path / "again").state_dict()
    assert all(torch.equal(value, again[name]) for name, value in model.state_dict().items())

    monkeypatch.delitem(sys.modules, "ownnets")
    monkeypatch.setattr(sys, "path", [each for each in sys.path if "training" not in each])
    monkeypatch.chdir(tmp_path)
    assert main(["plot", "run"]) == 0  # which needs no network
    with pytest.raises(ConfigError) as error:
        fqvae.load("run")
    assert str(error.value) == (
        "model.network.kind is 'ownnets:small', which cannot be imported: "
        "ModuleNotFoundError: No module named 'ownnets'"
    )


def test_a_module_in_the_folder_in_which_the_command_is_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each])
    (tmp_path / "lies_here.py").write_text("from ownnets import small as net\n")
    config = load_preset("smoke", "qvae", ["model.network.kind=lies_here:net"])
    assert Autoencoder(config.model, 16)(torch.zeros(1, 3, 16, 16)).shape == (1, 3, 16, 16)
