"""Short names, files of one's own, the list of keys, and suggestions that look at the meaning first."""

import random
import string

import pytest
import yaml

import fqvae
from fqvae.cli import main
from fqvae.models import ConfigError
from fqvae.runs import RunConfig, from_flat, load_preset, preset_names, to_flat
from fqvae.runs.describe import describe_keys
from fqvae.runs.keys import did_you_mean
from fqvae.runs.presets import load_file
from fqvae.runs.words import HINTS, SHORT
from fqvae.sweep.file import read_sweep

KEYS = list(to_flat(RunConfig()))
SHORT_AND_FULL = {
    "K": ("32", "model.latent.codebook_size"),
    "beta": ("0.5", "model.weights.kl"),
    "gamma": ("0.25", "model.weights.total_correlation"),
    "latents": ("5", "model.latent.size"),
    "lr": ("0.125", "optimizer.learning_rate"),
}


@pytest.mark.parametrize("short", SHORT_AND_FULL)
def test_short_names(short, tmp_path):
    value, full = SHORT_AND_FULL[short]
    expected = load_preset("smoke", overrides=[f"{full}={value}"])
    assert to_flat(expected)[full] == float(value) != to_flat(load_preset("smoke"))[full]
    assert load_preset("smoke", overrides=[f"{short}={value}"]) == expected
    assert load_preset("smoke", overrides=[f"{full}=1", f"{short}={value}"]) == expected  # the last one wins
    assert from_flat({short: value}) == from_flat({full: value})

    (tmp_path / "run.yaml").write_text(f"preset: smoke\n{short}: {value}\n")
    assert load_file(tmp_path / "run.yaml") == expected
    (tmp_path / "sweep.yaml").write_text(f"preset: smoke\nseeds: [0]\nruns: {{a: {{{short}: {value}}}}}\n")
    assert read_sweep(tmp_path / "sweep.yaml").runs["a"].settings == (f"{full}={value}",)
    assert SHORT.keys() == SHORT_AND_FULL.keys()


def test_a_file_is_the_run_it_describes(tmp_path):
    expected = load_preset("smoke", "vae", ["steps=7", "model.latent.size=3", "temperature_steps=none"])
    file = tmp_path / "my.yaml"
    for text in (
        "preset: smoke\nmodel: vae\nsteps: 7\nmodel.latent.size: 3\ntemperature_steps:\n",
        "preset: smoke\nmodel: vae\nsteps: 7e0\nlatents: 3\ntemperature_steps: none\n",
        yaml.safe_dump(to_flat(expected)),  # a run's config.yaml
    ):
        file.write_text(text)
        assert load_file(file) == expected
    file.write_text("preset: smoke\nmodel:\n  latent: {size: 3}\nsteps: 9\ntemperature_steps: null\n")
    assert load_file(file, "vae", ["steps=7"]) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("steps: 5\ngama: 1\n", "my.yaml: unknown key 'gama'; did you mean 'gamma'?"),
        (
            "model:\n  latent:\n    sise: 3\n",
            "unknown key 'model.latent.sise'; did you mean 'model.latent.size'?",
        ),
        ("preset: smok\n", "there is no preset 'smok'; did you mean 'smoke'?"),
        ("model: vae\n", "the model 'vae' needs a preset: add a line 'preset: NAME'"),
        ("gamma: 1\nmodel.weights.total_correlation: 1\n", "is there twice, also by its short name"),
        ("steps: 1\nsteps: 2\n", "'steps' is there twice"),
        ("steps: [1, 2]\n", "steps must be a single value, but was a list"),
        ("steps: many\n", "steps must be a whole number, but was 'many'"),
        ("5: 3\n", "the key 5 is not a text"),
        ("- a\n", "it must be a mapping of keys to values, but was list"),
        ("", "it must be a mapping of keys to values, but was NoneType"),
        ("a: [", "it is not YAML"),
        ("{model: " * 3000 + "1" + "}" * 3000, "nested at most 20 deep"),
    ],
)
def test_bad_files(text, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.yaml").write_text(text)
    assert main(["train", "my.yaml"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("fqvae: error: my.yaml: ") and words in error and error.count("\n") == 1
    assert main(["train", "other.yaml"]) == 1
    assert capsys.readouterr().err == "fqvae: error: there is no file other.yaml\n"


def test_training_from_a_file(tmp_path, monkeypatch):
    pytest.importorskip("lightning")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.yaml").write_text(
        "preset: smoke\nmodel:\n  network.channels: 4\n  discriminator: {width: 16}\n"
        "batch_size: 8\nsteps: 3\n"
    )
    assert main(["train", "my.yaml", "K=8", "--device", "cpu"]) == 0
    assert fqvae.load("runs/my").latent.codebook.shape == (8,)


def test_every_key_is_described():
    described = describe_keys(RunConfig())
    assert [each.name for each in described] == KEYS
    assert not [each.name for each in described if not each.meaning]
    found = {each.name: each for each in described}
    assert found["model.weights.total_correlation"].short == "gamma"
    assert found["temperature_steps"].kind == "whole number or none"
    assert found["model.latent.size"].meaning == "M, the number of latents."
    assert found["data.channels"].meaning.startswith("1 for grey images, 3 for those with colours")


def test_the_list_of_keys(capsys):
    assert main(["train", "--keys"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 * len(KEYS)
    assert "model.latent.size (or latents) = 12  [whole number]" in lines
    assert "temperature_steps = none  [whole number or none]" in lines
    assert "model.latent.hard = false  [true or false]" in lines
    assert main(["train", "--keys", "smoke", "latents=9", "--model", "ae"]) == 0
    assert "model.latent.size (or latents) = 9  [whole number]" in capsys.readouterr().out.splitlines()


def test_version(capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["--version"])
    assert exit_.value.code == 0 and capsys.readouterr().out == f"fqvae {fqvae.__version__}\n"


@pytest.mark.parametrize(
    ("word", "key"),
    [
        ("gamma", "gamma"),
        ("Gamma", "gamma"),
        ("gama", "gamma"),
        ("tc", "model.weights.total_correlation"),
        ("kl", "model.weights.kl"),
        ("codes", "model.latent.codebook_size"),
        ("num_codes", "model.latent.codebook_size"),
        ("codebook", "model.latent.codebook_size"),
        ("epochs", "steps"),
        ("batch", "batch_size"),
        ("bs", "batch_size"),
        ("dataset", "data.name"),
        ("tau", "temperature_steps"),
        ("learning-rate", "optimizer.learning_rate"),
        ("model.wieghts.kl", "model.weights.kl"),
        ("codebook_sise", "model.latent.codebook_size"),
    ],
)
def test_what_is_meant(word, key):
    assert did_you_mean(word, KEYS) == f"; did you mean {key!r}?"


def test_nonsense_suggests_nothing():
    generator = random.Random(0)
    words = ["".join(generator.choices(string.ascii_lowercase, k=8)) for _ in range(200)]
    assert [word for word in [*words, "xyzzy", "banana", "?", ""] if did_you_mean(word, KEYS) != "."] == []
    assert did_you_mean("cifar", preset_names()) == "."
    with pytest.raises(ConfigError, match=r"^unknown key 'xyzzy'\.$"):
        from_flat({"xyzzy": 1})


def test_hints_point_to_keys():
    assert set(HINTS.values()) | set(SHORT.values()) <= set(KEYS)
    assert not set(HINTS) & {key.rsplit(".", 1)[-1] for key in KEYS if HINTS.get(key) != key} - {"codebook"}
