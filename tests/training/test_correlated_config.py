"""Correlated factors by a run's configuration: from the command line and YAML to the training images."""

import numpy as np
import pytest
from scipy import stats

import fqvae.training.run
from fqvae.data import RayShapes, split
from fqvae.models import Autoencoder, ConfigError
from fqvae.runs import from_flat, load_preset, open_run, to_flat
from fqvae.runs.checkpoint import FORMAT, read_checkpoint, write_plain
from fqvae.runs.data import open_data
from fqvae.sweep import plan, read_sweep

WALL, OBJECT, SCALE, SHAPE = (
    RayShapes.factor_names.index(name) for name in ("wall_hue", "object_hue", "scale", "shape")
)
PAIR = ["data.correlated=object_hue:wall_hue", "data.strength=0.7"]


def conditional(dataset, index, tied, leading):
    """Counts of (leading, tied) among these images."""
    factors = dataset.factors(index).numpy()
    counts = np.zeros((dataset.factor_sizes[leading], dataset.factor_sizes[tied]))
    np.add.at(counts, (factors[:, leading], factors[:, tied]), 1)
    return counts


def expected(size_a, size_b, strength):
    """p(b | a) = (1 - s)/B + s [b = floor(a B / A)], cell by cell."""
    return np.array(
        [
            [(1 - strength) / size_b + (strength if b == a * size_b // size_a else 0) for b in range(size_b)]
            for a in range(size_a)
        ]
    )


def fits(counts, p):
    """Whether the rows of counts are draws from the rows of p."""
    return stats.chisquare(counts.ravel(), (p * counts.sum(1, keepdims=True)).ravel()).pvalue > 1e-3


def checkpoint(path, config, without=()):
    """A checkpoint of an untrained model, its configuration without some keys."""
    model = Autoencoder(config.model, config.data.size)
    flat = {key: value for key, value in to_flat(config).items() if key not in without}
    state = {f"autoencoder.{name}": value for name, value in model.state_dict().items()}
    write_plain({"fqvae": {"format": FORMAT, "config": flat, "step": 3}, "state_dict": state}, path)


def test_training_images_follow_the_formula():
    config = load_preset("smoke", "qvae", PAIR)
    dataset = open_data(config.data)
    counts = conditional(dataset, split(dataset).train, OBJECT, WALL)
    assert fits(counts, expected(10, 10, 0.7))
    assert not fits(counts, expected(10, 10, 0.68))  # the test can tell
    assert np.abs(counts / counts.sum(1, keepdims=True) - expected(10, 10, 0.7)).max() < 0.01
    # Held-out images do not: results on them can be compared.
    assert fits(conditional(dataset, split(dataset).test, OBJECT, WALL), np.full((10, 10), 0.1))
    plain = open_data(load_preset("smoke", "qvae").data)
    assert plain.correlation is None
    assert np.array_equal(split(plain).test, split(dataset).test)


def test_two_pairs_from_a_sweep_file(tmp_path):
    (tmp_path / "two.yaml").write_text(
        "preset: smoke\nseeds: [0]\nsettings: {data.strength: 0.4}\n"
        'runs:\n  tied: {data.correlated: "shape:object_hue, scale:wall_hue"}\n'
    )
    (job,) = plan(read_sweep(tmp_path / "two.yaml"), tmp_path)
    assert job.config == load_preset("smoke", "factorqvae", job.words[4:])
    dataset = open_data(job.config.data)
    train = split(dataset).train
    assert fits(conditional(dataset, train, SHAPE, OBJECT), expected(10, 4, 0.4))
    assert fits(conditional(dataset, train, SCALE, WALL), expected(10, 8, 0.4))
    assert fits(conditional(dataset, train, OBJECT, WALL), np.full((10, 10), 0.1))


def test_training_and_evaluation_open_this_set(tmp_path, monkeypatch):
    config = load_preset("smoke", "qvae", [*PAIR, "model.network.channels=4", "model.network.hidden=8"])
    checkpoint(tmp_path / "last.ckpt", config)
    assert read_checkpoint(tmp_path).config == config
    opened = [open_run(tmp_path).dataset]

    def stop(config, dataset, index):
        opened.append(dataset)
        assert np.array_equal(index, split(RayShapes(32, **tied)).train)
        raise KeyboardInterrupt

    tied = {"correlated": {"object_hue": "wall_hue"}, "strength": 0.7}
    monkeypatch.setattr(fqvae.training.run, "Training", stop)
    with pytest.raises(KeyboardInterrupt):
        fqvae.training.run.train(config, tmp_path / "new", device="cpu")
    for dataset in opened:
        assert (dataset.correlation.pairs, dataset.correlation.strength) == (tied["correlated"], 0.7)
        assert dataset.size == 32


def test_a_checkpoint_from_before_there_were_these_keys(tmp_path):
    config = load_preset("smoke", "qvae", ["model.network.channels=4", "model.network.hidden=8"])
    checkpoint(tmp_path / "last.ckpt", config, without=("data.correlated", "data.strength"))
    assert read_checkpoint(tmp_path).config == config
    assert open_run(tmp_path).dataset.correlation is None


def test_flat_keys():
    flat = to_flat(load_preset("smoke", "qvae", PAIR))
    assert (flat["data.correlated"], flat["data.strength"]) == ("object_hue:wall_hue", 0.7)
    assert from_flat(flat) == load_preset("smoke", "qvae", PAIR)
    none = load_preset("smoke", "qvae", ["data.correlated=none", "data.strength=0"])
    assert none == load_preset("smoke", "qvae") and none.data.correlated is None


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            ["correlated=object_hue"],
            "data.correlated must be pairs tied:leading with a comma between them, but",
        ),
        (["correlated="], "with a comma between them, but was ''"),
        (["correlated=a:b:c"], "but was 'a:b:c'"),
        (["correlated=shape:scale,"], "but was 'shape:scale,'"),
        (
            ["correlated=shape:scale,shape:wall_hue"],
            "data.correlated ties 'shape' twice: 'shape:scale,shape:",
        ),
        (
            ["correlated=object_hue:wall"],
            "data.correlated: rayshapes has no factor 'wall'; did you mean 'wall_",
        ),
        (["correlated=shape:scale,scale:wall_hue"], "data.correlated: scale is tied to a factor and has a"),
        (["correlated=shape:scale", "strength=1.5"], "data.strength must be between 0 and 1, but was 1.5"),
        (["correlated=shape:scale", "strength=nan"], "data.strength must be between 0 and 1, but was nan"),
        (["correlated=shape:scale", "strength=x"], "data.strength must be a number, but was 'x'"),
        (["strength=0.5"], "data.strength was 0.5, but correlated names no factors to tie"),
        (
            ["name=shapes3d", "correlated=shape:scale"],
            "data.correlated is for rayshapes only, but data.name was",
        ),
        (
            ["name=shapes3d", "strength=0.5"],
            "data.strength is for rayshapes only, but data.name was 'shapes3d'",
        ),
        (["correlate=shape:scale"], "unknown key 'data.correlate'; did you mean 'data.correlated'?"),
    ],
)
def test_errors_when_the_configuration_is_made(settings, words):
    with pytest.raises(ConfigError) as error:
        load_preset("smoke", "qvae", [f"data.{setting}" for setting in settings])
    assert words in str(error.value)
