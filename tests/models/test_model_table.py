"""A model's name stands in its configuration, and everything that names models reads one table."""

import pytest
import yaml

from fqvae.models import ConfigError, LatentConfig, ModelConfig
from fqvae.models.penalties import PENALTIES
from fqvae.models.table import CUSTOM, MODELS
from fqvae.runs import from_flat, load_preset, preset_names, to_flat
from fqvae.runs.presets import _FOLDER

PAPER = {
    "ae": "AE",
    "bioae": "BioAE",
    "vae": "VAE",
    "factorvae": "FactorVAE",
    "qlae": "QLAE",
    "dvae": "dVAE",
    "factordvae": "FactorDVAE",
    "qvae": "QVAE",
    "factorqvae": "FactorQVAE",
}


def test_the_papers_nine_come_first_in_its_order():
    assert [(each.name, each.label) for each in MODELS.values()][:9] == list(PAPER.items())


@pytest.mark.parametrize("model", MODELS)
def test_an_entry_is_whole(model):
    entry = MODELS[model]
    assert entry.name == model and entry.label and entry.description
    latent = LatentConfig(**entry.latent)
    assert set(entry.weights) <= set(latent.penalties) and all(
        weight > 0 for weight in entry.weights.values()
    )
    assert LatentConfig(**{**entry.latent, **entry.authors})


@pytest.mark.parametrize("preset", preset_names())
@pytest.mark.parametrize("model", MODELS)
def test_a_preset_gives_the_model_under_its_name(preset, model):
    config = load_preset(preset, model).model
    assert config.name == model and config.label == MODELS[model].label
    assert {each.name for each in config.penalties} == set(MODELS[model].weights)
    assert config.has_discriminator == MODELS[model].has_discriminator


def test_presets_name_models_that_there_are():
    for path in _FOLDER.iterdir():
        if path.name.endswith(".yaml"):
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
            assert set(content) <= {"base", "all", "discriminator", "models"}
            assert set(content.get("models", {})) <= set(MODELS), path.name


@pytest.mark.parametrize(
    ("model", "overrides", "label"),
    [
        ("factorqvae", ["model.weights.total_correlation=0"], "FactorQVAE"),
        ("qvae", ["model.weights.total_correlation=1e-4"], "QVAE (total correlation)"),
        ("factorqvae", ["model.latent.codebook_size=32", "model.latent.hard=true"], "FactorQVAE"),
        ("factorqvae", ["model.latent.codebooks=per_latent"], "FactorQVAE (codebooks per_latent)"),
        ("qvae", ["model.latent.kind=vector", "model.latent.dimension=4"], "QVAE (kind vector)"),
        ("qvae", ["model.latent.estimator=reinmax"], "QVAE (estimator reinmax)"),
        ("qvae", ["model.name=custom"], "A model of its own"),
    ],
)
def test_what_was_changed_by_hand_is_told(model, overrides, label):
    config = load_preset("smoke", model, overrides)
    assert config.model.label == label
    assert from_flat(to_flat(config)).model.name == config.model.name


def test_names_that_are_none_are_refused():
    assert ModelConfig().name == CUSTOM.name
    with pytest.raises(ConfigError, match=r"model.name must be one of ae, .*, custom, but was 'qva'"):
        load_preset("smoke", "qvae", ["model.name=qva"])


def test_penalties_have_names_of_their_own():
    labels = [each.label for each in PENALTIES.values()]
    assert len(set(labels)) == len(labels)
