"""Which of the nine models a configuration is."""

import pytest

from fqvae.runs.presets import load_preset, model_name, model_names, preset_names

SHARED = ["model.latent.codebooks=shared", "model.latent.init=normal"]


@pytest.mark.parametrize("preset", preset_names())
def test_all_presets(preset):
    names = [model_name(load_preset(preset, model)) for model in model_names()]
    assert names == ["ae", "bioae", "vae", "factorvae", "qlae", "dvae", "factordvae", "qvae", "factorqvae"]


@pytest.mark.parametrize(
    ("model", "overrides", "name"),
    [
        ("factorqvae", ["model.weights.total_correlation=0"], "qvae"),
        ("qvae", ["model.weights.total_correlation=1e-4"], "factorqvae"),
        ("factorvae", ["model.weights.total_correlation=0"], "vae"),
        ("factordvae", ["model.weights.total_correlation=0"], "dvae"),
        ("bioae", ["model.weights.nonnegativity=0"], "bioae"),
        ("bioae", ["model.weights.nonnegativity=0", "model.weights.activity=0"], "ae"),
        ("factorqvae", ["model.latent.codebook_size=32", "model.latent.hard=true"], "factorqvae"),
        ("factorqvae", ["model.latent.codebooks=per_latent"], "factorqvae"),
        ("qvae", ["model.latent.kind=vector", "model.latent.dimension=4"], "vector"),
        ("factorqvae", ["model.latent.kind=vector", "model.latent.dimension=4"], "vector"),
        ("qlae", ["model.latent.kind=vector", *SHARED], "vector"),
        ("ae", ["model.weights.total_correlation=1e-4"], "custom"),
        ("qlae", SHARED, "custom"),
    ],
)
def test_parts(model, overrides, name):
    assert model_name(load_preset("smoke", model, overrides)) == name
