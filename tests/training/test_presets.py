"""Presets against the paper's table, and every way to name something that is not there."""

import dataclasses

import pytest

from fqvae.models import ConfigError, LatentConfig, ModelConfig, NetworkConfig
from fqvae.runs import RunConfig, from_flat, load_preset, model_names, preset_names, to_flat

SETS = {"shapes3d": 12, "isaac3d": 18, "mpi3d_complex": 14}
# Weights by model: on Shapes3D, Isaac3D, MPI3D-Complex.
TABLE = {
    "ae": {},
    "bioae": {"nonnegativity": (1, 1, 1), "activity": (1e-2, 0.1, 1e-2)},
    "vae": {"kl": (1e-4, 5e-5, 1e-5)},
    "factorvae": {"kl": (1e-4, 5e-5, 1e-5), "total_correlation": (1e-4, 5e-5, 1e-5)},
    "qlae": {"commitment": (1e-2, 1e-2, 1e-2), "codebook": (1e-2, 1e-2, 1e-2)},
    "dvae": {"kl": (5e-3, 1e-5, 5e-5)},
    "factordvae": {"kl": (5e-3, 1e-5, 5e-5), "total_correlation": (5e-4, 1e-5, 5e-6)},
    "qvae": {"kl": (1e-3, 5e-5, 5e-5)},
    "factorqvae": {"kl": (1e-3, 5e-5, 5e-5), "total_correlation": (1e-4, 5e-5, 1e-6)},
}
KINDS = dict(
    zip(TABLE, ["plain", "plain", *["gaussian"] * 2, "scalar", *["logits"] * 2, *["scalar"] * 2], strict=True)
)


@pytest.mark.parametrize("model", TABLE)
@pytest.mark.parametrize(("column", "data"), list(enumerate(SETS)))
def test_the_papers_27(model, data, column):
    config = load_preset(data, model)
    assert config.data.name == data and config.data.size == 64
    expected = {name: values[column] for name, values in TABLE[model].items()}
    assert {name: weight for name, weight in vars(config.model.weights).items() if weight} == expected
    assert config.model.network == ModelConfig().network and config.model.discriminator.width == 1000
    latent = config.model.latent
    assert latent.kind == KINDS[model] and latent.size == SETS[data] and latent.dimension == 1
    assert latent.codebook_size == (16 if model == "qlae" else 64)
    assert latent.codebooks == ("per_latent" if model == "qlae" else "shared")
    assert latent.estimator == ("nearest" if model == "qlae" else "gumbel")

    factor = model.startswith("factor")
    assert config.model.has_discriminator == factor and config.batch_size == (512 if factor else 256)
    assert config.steps == 50_000
    optimizer = config.optimizer
    assert (optimizer.learning_rate, optimizer.final_learning_rate) == (1e-3, 1.25e-6)
    if latent.kind in ("logits", "scalar") and latent.estimator == "gumbel":
        # exp(-1e-5 t), where t counts optimizer steps: two a batch with a discriminator
        assert 1 / config.temperature_steps == pytest.approx(2e-5 if factor else 1e-5)


@pytest.mark.parametrize("protocol", ["ours", "authors"])
def test_what_a_discriminator_needs_follows_the_weights(protocol):
    """A batch of two halves, and two steps of the optimizers in each, whatever the model is called."""

    def numbers(model, *settings):
        config = load_preset("shapes3d", model, [*settings, f"protocol={protocol}"])
        return config.model.has_discriminator, config.batch_size, config.temperature_steps, config.steps

    assert numbers("factorqvae", "gamma=0") == numbers("qvae") == (False, 256, 100_000, numbers("qvae")[3])
    assert numbers("qvae", "gamma=1e-4") == numbers("factorqvae") == (True, 512, 50_000, 50_000)
    assert numbers("qvae", "gamma=1e-4", "batch_size=64")[1] == 64


def test_a_temperature_that_falls_too_low_is_refused_before_training():
    """exp(-2999/34) is 5e-39, exp(-2999/33) is 3.4e-40, whose reciprocal float32 does not have."""
    for model in ("qvae", "dvae"):
        assert load_preset("smoke", model, ["temperature_steps=34"]).temperature_steps == 34
        with pytest.raises(
            ConfigError, match=r"^temperature_steps must be at least 34 for 3000 steps.*was 33"
        ):
            load_preset("smoke", model, ["temperature_steps=33"])
    for model in ("vae", "qlae"):  # which have none
        assert load_preset("smoke", model, ["temperature_steps=1"]).temperature_steps == 1


def test_presets_for_rendered_images():
    assert preset_names() == [
        *("isaac3d", "mpi3d_complex", "rayshapes", "rayshapes_long", "shapes3d", "small", "smoke"),
    ]
    smoke, small = load_preset("smoke"), load_preset("small")
    assert (smoke.steps, small.steps, smoke.batch_size) == (3_000, 12_000, 128)
    assert smoke.model == small.model and smoke.temperature_steps is None
    weights = dataclasses.asdict(smoke.model.weights)
    assert weights == {**dict.fromkeys(weights, 0.0), "kl": 1e-3, "total_correlation": 5e-4}
    assert (smoke.optimizer.learning_rate, smoke.optimizer.discriminator_learning_rate) == (2e-3, 1e-3)
    for model in model_names():
        assert load_preset("smoke", model).batch_size == (128 if model.startswith("factor") else 64)


def test_texts_and_numbers_are_read_by_type():
    config = load_preset("smoke", "qvae", ["steps=1e3", "model.weights.kl=2e-3", "model.latent.hard=true"])
    assert config.steps == 1000 and isinstance(config.steps, int)
    assert config.model.weights.kl == 2e-3 and config.model.latent.hard is True
    assert load_preset("shapes3d", "qvae", ["temperature_steps=none"]).temperature_steps is None
    assert load_preset("shapes3d", "qvae", ["data.root=/a=b"]).data.root == "/a=b"


@pytest.mark.parametrize("model", model_names())
def test_flat_and_back(model):
    config = load_preset("isaac3d", model)
    assert from_flat(to_flat(config)) == config
    assert from_flat({}) == RunConfig()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("smok",), "no preset 'smok'; did you mean 'smoke'"),
        (("paper",), "no preset 'paper'"),
        (("smoke", "factorqvea"), "no model 'factorqvea'; did you mean 'factorqvae'"),
        (("smoke", "qvae", ["step=3"]), "unknown key 'step'; did you mean 'steps'"),
        (("smoke", "qvae", ["kl=3"]), "unknown key 'kl'; did you mean 'model.weights.kl'"),
        (("smoke", "qvae", ["model.latent.sise=3"]), "did you mean 'model.latent.size'"),
        (("smoke", "qvae", ["steps"]), "expected key=value, but found 'steps'"),
        (("smoke", "qvae", ["steps=many"]), "steps must be a whole number, but was 'many'"),
        (("smoke", "qvae", ["steps=1.5"]), "steps must be a whole number, but was '1.5'"),
        (("smoke", "qvae", ["steps=nan"]), "steps must be a whole number"),
        (("smoke", "qvae", ["steps=0"]), "^steps must be finite and at least 1, but was 0"),
        (("smoke", "qvae", ["temperature_steps=0"]), "temperature_steps must be finite and at least 1"),
        (("smoke", "qvae", ["model.weights.kl=inf"]), "weights.kl must be finite"),
        (("smoke", "qvae", ["model.weights.kl=x"]), "model.weights.kl must be a number, but was 'x'"),
        (("smoke", "qvae", ["model.latent.hard=yes"]), "model.latent.hard must be true or false"),
        (("smoke", "qvae", ["model.latent.kind=scalr"]), "cannot be 'scalr'; did you mean 'scalar'"),
        (
            ("smoke", "qvae", ["total_correlation_from=2"]),
            "total_correlation_from must be 0 .* was 2",
        ),
        (("smoke", "factorqvae", ["total_correlation_from=-1"]), "total_correlation_from must be .*least 0"),
        (
            ("smoke", "factorqvae", ["steps=7", "total_correlation_from=7"]),
            r"total_correlation_from must be below steps \(7\), but was 7",
        ),
        (("smoke", "factorqvae", ["batch_size=13"]), r"batch_size must be even, .* but was 13"),
        (("smoke", "ae", ["model.weights.kl=1"]), "weights.kl must be 0 for a 'plain' latent"),
        (
            ("smoke", "qvae", ["optimizer.learning_rate=-1"]),
            "optimizer.learning_rate must be finite and at least 0",
        ),
    ],
)
def test_mistakes_are_named_with_the_nearest_right_one(arguments, words):
    with pytest.raises(ConfigError, match=words):
        load_preset(*arguments)


def test_large_whole_numbers_are_exact():
    """A seed that a float would round must come back from a checkpoint as it was."""
    seed = 2**62 + 1
    config = load_preset("smoke", "qvae", [f"seed={seed}"])
    assert config.seed == seed and from_flat(to_flat(config)) == config


@pytest.mark.parametrize(
    ("part", "field", "words"),
    [
        (LatentConfig, "kind", r"latent\.kind must be one of \('plain', .*, but was 'x'"),
        (
            LatentConfig,
            "estimator",
            r"latent\.estimator must be one of \('gumbel', 'straight_through', .*, but was 'x'",
        ),
        (LatentConfig, "codebooks", r"latent\.codebooks must be one of"),
        (LatentConfig, "init", r"latent\.init must be one of"),
        (NetworkConfig, "kind", r"network\.kind must be one of"),
        (NetworkConfig, "init", r"network\.init must be one of"),
    ],
)
def test_parts_made_in_python_are_checked_too(part, field, words):
    with pytest.raises(ConfigError, match=words):
        part(**{field: "x"})


def test_values_of_the_wrong_type_are_refused():
    with pytest.raises(ConfigError, match="steps must be a whole number, but was True"):
        from_flat({"steps": True})
    with pytest.raises(ConfigError, match=r"data.name must be a text, but was 3"):
        from_flat({"data.name": 3})
