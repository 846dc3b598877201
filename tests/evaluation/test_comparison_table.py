"""The table of several runs, from metrics.json files made by hand, against NumPy."""

import csv
import json

import numpy as np
import pytest

from fqvae.evaluation import comparison, read_evaluation
from fqvae.evaluation.table import scores_text
from fqvae.runs import to_flat
from fqvae.runs.presets import load_preset

PAPER = ["disentanglement", "completeness", "informativeness", "infom", "infoc", "infoe", "mse"]


@pytest.fixture
def write(tmp_path):
    """A function that writes metrics.json of a run that never was, and gives its folder."""

    def written(name, model="factorqvae", *settings, numbers=None, step=None, discrete=True, **changes):
        config = to_flat(load_preset("smoke", model, ["model.latent.size=2", *settings]))
        numbers = numbers or [0.5] * 7
        content = {
            "format": 2,
            "versions": {},
            "model": model,
            "config": config,
            "checkpoint": {"file": "last.ckpt", "sha256": name, "step": step or config["steps"]},
            "data": {
                "name": "rayshapes",
                "size": 32,
                "factor_names": ["hue"],
                "factor_sizes": [4],
                "grid": True,
                "available": 1000,
            },
            "options": {
                "train": 100,
                "test": 50,
                "seed": 0,
                "classifier": "boosting",
                "order": "rank",
                "protocol": "held-out",
            },
            "measures": versioned(
                dict(zip(PAPER, numbers, strict=True)) | ({"codes_used": 3.0} if discrete else {})
            ),
            "tables": versioned({"nmi": [[1.0, 0.0]]}),
            "cautions": {},
            "seconds": {"encoding": 20.0, "dci": 80.0},
        }
        for key, value in changes.items():
            part, _, inner = key.partition("__")
            content[part][inner] = value
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.json").write_text(json.dumps(content))
        return tmp_path / name

    return written


def versioned(values):
    return {name: {"value": value, "version": 1} for name, value in values.items()}


def cells(markdown):
    rows = [line.strip("|").split("|") for line in markdown.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows]


def test_mean_and_standard_deviation(write):
    numbers = np.random.default_rng(0).random((5, 7))
    numbers[:, 6] /= 300
    folders = [write(f"q{seed}", "qvae", f"seed={seed}", numbers=[*numbers[seed]]) for seed in (2, 0, 1)]
    folders += [write("f", "factorqvae", numbers=[*numbers[3]])]
    folders += [write("a", "ae", numbers=[*numbers[4]], discrete=False)]
    table = comparison(folders)

    rows = cells(table.markdown())
    assert rows[0] == ["model", "seeds", "D", "C", "I", "InfoM", "InfoC", "InfoE", "MSE"]
    # The paper's order, not that of the arguments.
    assert [row[:2] for row in rows[2:]] == [["ae", "1"], ["qvae", "3"], ["factorqvae", "1"]]
    mean, deviation = np.mean(numbers[:3], axis=0), np.std(numbers[:3], axis=0, ddof=1)
    shown = [f"{a:.3f} ± {b:.3f}" for a, b in zip(mean[:6], deviation[:6], strict=True)]
    assert rows[3][2:] == [*shown, f"{mean[6]:.3g} ± {deviation[6]:.3g}"]
    assert rows[4][2:] == [*(f"{each:.3f}" for each in numbers[3, :6]), f"{numbers[3, 6]:.3g}"]
    assert "rayshapes, 32 x 32 pixels; 100 training and 50 test samples; DCI by boosting" in table.markdown()

    lines = list(csv.DictReader(table.csv().splitlines()))
    assert [line["model"] for line in lines] == ["ae", "qvae", "factorqvae"]
    for column, name in enumerate(PAPER):
        assert float(lines[1][f"{name} mean"]) == pytest.approx(mean[column], rel=1e-12)
        assert float(lines[1][f"{name} std"]) == pytest.approx(deviation[column], rel=1e-12)
        assert float(lines[0][f"{name} mean"]) == numbers[4, column] and lines[0][f"{name} std"] == ""
    assert lines[0]["codes_used mean"] == "" and float(lines[1]["codes_used mean"]) == 3
    assert table.lines[1].seeds == (0, 1, 2)


def test_configurations_of_the_same_model_are_told_apart(write):
    folders = [
        write("a", "factorqvae", "model.latent.codebook_size=32"),
        write("b", "factorqvae"),
        write("c", "factorqvae", "seed=1"),
        write("d", "factorqvae", "model.weights.kl=2e-3", "data.root=elsewhere", "seed=2"),
        write("e", "qvae", "model.weights.kl=2e-3"),
        write("f", "vae", "steps=400", step=100),
    ]
    names = [line.name for line in comparison(folders).lines]
    assert names == [
        "vae (step 100 of 400)",
        "qvae",
        "factorqvae codebook_size=32 kl=0.001",
        "factorqvae codebook_size=64 kl=0.001",
        "factorqvae codebook_size=64 kl=0.002",
    ]
    assert [len(line.seeds) for line in comparison(folders).lines] == [1, 1, 1, 2, 1]


def test_an_unfinished_run_is_no_seed_of_finished_ones(write):
    lines = comparison([write("a"), write("b", "factorqvae", "seed=1", step=7)]).lines
    assert [line.name for line in lines] == ["factorqvae", "factorqvae (step 7 of 3000)"]


def test_keys_of_the_same_last_word_are_written_in_full(write):
    folders = [
        write("a", "qvae", "model.latent.init=linspace"),
        write("b", "qvae", "model.network.init=normal"),
    ]
    assert comparison(folders).lines[0].name == "qvae model.network.init=fan_in model.latent.init=linspace"


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("options__train", 99, "options.train was 100 for the first and 99 for the second"),
        ("options__test", 49, "options.test was 50 for the first and 49"),
        ("options__classifier", "histogram", "options.classifier was 'boosting' .* and 'histogram'"),
        ("options__protocol", "authors", "options.protocol was 'held-out' for the first and 'authors'"),
        ("options__order", "index", "options.order was 'rank' for the first and 'index'"),
        ("data__name", "shapes3d", "data.name was 'rayshapes' for the first and 'shapes3d'"),
        ("data__size", 64, "data.size was 32 for the first and 64"),
        ("data__images", "c0", "they were measured on other images, though both sets are called 'rayshapes'"),
        ("data__labels", "c0", "they were measured on other labels"),
    ],
)
def test_what_cannot_be_compared(key, value, words, write):
    digests = {"data__images": "a0", "data__labels": "a0"}
    folders = [write("a", **digests), write("b", "ae"), write("c", "vae", **{**digests, key: value})]
    with pytest.raises(ValueError, match=f"a and .*c cannot be compared: {words}"):
        comparison(folders)


def test_other_refusals(write, tmp_path):
    with pytest.raises(ValueError, match="at least one run"):
        comparison([])
    with pytest.raises(ValueError, match=r"/a and .*/b have the same configuration and the same seed, 5"):
        comparison([write("a", "ae", "seed=5"), write("b", "ae", "seed=5")])
    with pytest.raises(FileNotFoundError, match=r"metrics\.json"):
        comparison([tmp_path / "a", tmp_path])
    (tmp_path / "b" / "metrics.json").write_text("{")
    with pytest.raises(ValueError, match=r"b/metrics\.json is damaged"):
        comparison([tmp_path / "a", tmp_path / "b"])
    # The same folder twice is one run.
    assert comparison([tmp_path / "a", str(tmp_path / "a")]).lines[0].seeds == (5,)


def test_one_run(write):
    folder = write("a", numbers=[0.1234, 1.0, 0.5, 0.5, 0.5, 0.5, 0.001234])
    lines = scores_text(read_evaluation(folder)).splitlines()
    assert lines[0] == "factorqvae at step 3000 of 3000"
    assert lines[2].split() == ["disentanglement", "0.123"]
    assert ["mse", "0.00123"] in [line.split() for line in lines]
    assert lines[-1] == "measured in 100 s, of which 80 s for DCI"
