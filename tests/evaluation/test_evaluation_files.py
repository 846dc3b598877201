"""metrics.json and its tables: what is in them, what is refused, and that they are whole or as they were."""

import csv
import json
import os

import numpy as np
import pytest
import torch

import fqvae.evaluation.inputs as inputs_module
from fqvae.evaluation import (
    Evaluation,
    Options,
    contents,
    evaluate,
    read_evaluation,
    write_evaluation,
)
from fqvae.evaluation.measures import TABLES, applicable
from fqvae.runs import open_run, to_flat

FILES = ("metrics.json", "importance.csv", "nmi.csv")


def made_up(name="factorqvae", shift=0.0):
    """An evaluation of 4 latents, 4 factors and 8 codes, no entry like another."""
    has = {"labels", "grid"} | ({"codes", "scalar codes", "soft samples"} if name == "factorqvae" else set())
    measures, tables = applicable(frozenset(has))
    sizes, random = {"M": 4, "F": 4, "K": 8}, np.random.default_rng(0)
    return Evaluation(
        Options(20, 5, 3, "histogram", "index"),
        25,
        {each.name: 1 / (3 + number) + shift for number, each in enumerate(measures)},
        {each.name: random.random([sizes[letter] for letter in each.shape]) for each in tables},
        {"infoe": "infoe is high"},
        {"encoding": 0.5, "dci": 1.5},
    )


@pytest.fixture
def blob_run(copy_of):
    from blobset import BlobSet

    def opened(name="factorqvae"):
        return open_run(copy_of(name), dataset=BlobSet())

    return opened


@pytest.mark.parametrize("name", ["factorqvae", "vae"])
def test_what_is_written_is_read(name, blob_run):
    run, evaluation = blob_run(name), made_up(name)
    before = {each.name for each in run.folder.iterdir()}
    write_evaluation(run, evaluation)
    assert {each.name for each in run.folder.iterdir()} == before | set(FILES)
    found = read_evaluation(run.folder)
    assert found["model"] == name and found["format"] == 2
    assert found["config"] == to_flat(run.config)
    assert found["checkpoint"] == {"file": "last.ckpt", "sha256": run.sha256, "step": 80}
    assert found["data"]["name"] == "blobs" and found["data"]["size"] == 16
    assert found["data"]["factor_names"] == ["colour", "row", "column", "ground"]
    assert found["data"]["factor_sizes"] == [4, 4, 4, 4]
    assert found["data"]["grid"] is True and found["data"]["available"] == 25
    assert found["options"] == {
        "train": 20,
        "test": 5,
        "seed": 3,
        "classifier": "histogram",
        "order": "index",
        "protocol": "held-out",
    }
    assert found["scores"] == evaluation.scores and found["seconds"] == evaluation.seconds
    assert found["versions"]["torch"] == torch.__version__ and "scikit-learn" in found["versions"]
    assert found["cautions"] == {"infoe": "infoe is high"} and found["missing"] == []
    assert found == contents(run, evaluation)
    for table in TABLES:
        if table.name in evaluation.tables:
            assert np.array_equal(found[table.name], evaluation.tables[table.name])
        else:
            assert name == "vae" and found[table.name] is None

    importance, nmi = (list(csv.reader((run.folder / file).read_text().splitlines())) for file in FILES[1:])
    assert importance[0] == ["latent", "colour", "row", "column", "ground"]
    assert nmi[0] == ["factor", "0", "1", "2", "3"] and nmi[2][0] == "row" and importance[3][0] == "2"
    for lines, matrix in ((importance, evaluation.tables["importance"]), (nmi, evaluation.tables["nmi"])):
        assert np.array_equal([[float(cell) for cell in line[1:]] for line in lines[1:]], matrix)


def damage(**changes):
    """A file with changed values; None takes a key out."""

    def change(text):
        content = json.loads(text)
        for path, value in changes.items():
            *parts, last = path.split("__")
            inside = content
            for part in parts:
                inside = inside[part]
            if value is None:
                del inside[last]
            else:
                inside[last] = value
        return json.dumps(content)

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text[:-100], "is damaged: "),
        (lambda text: "", "is damaged: "),
        (lambda text: "\ud800", "is damaged: "),
        (lambda text: "[]", "was not written by fqvae evaluate"),
        (lambda text: '{"loss": 3}', "was not written by fqvae evaluate"),
        (damage(format=1), "has the format 1, but this version reads 2; fqvae evaluate .* writes it anew"),
        (damage(measures=None), "is damaged: measures is missing"),
        (damage(model=None), "is damaged: model is missing"),
        (damage(seconds=[1]), "is damaged: seconds is missing"),
        (damage(measures__mig__version=None), "is damaged: measures.mig has no value or no version"),
        (damage(measures__mig="high"), "is damaged: measures.mig has no value or no version"),
        (damage(measures__mig__value="high"), "is damaged: the measure mig is 'high'"),
        (damage(measures__mig__value=float("nan")), "is damaged: the measure mig is nan"),
        (damage(options__order=None), "is damaged: options has no order"),
        (damage(checkpoint__sha256=None), "is damaged: checkpoint has no sha256"),
        (damage(tables__nmi__value=None), "is damaged: tables.nmi has no value or no version"),
        (damage(tables__nmi__value=[[1.0, 2.0], [3.0]]), "is damaged: nmi is not a table of numbers"),
        (
            damage(tables__importance__value=[[0.5] * 4] * 3),
            r"is damaged: importance has the shape \(3, 4\), not \(4, 4\)",
        ),
        (
            damage(tables__usage__value=[[1] * 4] * 4),
            r"is damaged: usage has the shape \(4, 4\), not \(4, 8\)",
        ),
        (damage(tables__perplexity__value=[1, 2, 3, float("inf")]), "is damaged: perplexity is not finite"),
        (damage(data__factor_sizes=None), "is damaged: data has no factor_sizes"),
        (damage(data__factor_sizes=[2]), "is damaged: data.factor_names and data.factor_sizes are not"),
        (damage(data__factor_names="hue"), "is damaged: data.factor_names and data.factor_sizes are not"),
        (damage(cautions={"infoe": 3}), "is damaged: a caution is no text"),
    ],
)
def test_a_damaged_file(change, words, blob_run):
    run = blob_run()
    write_evaluation(run, made_up())
    path = run.folder / "metrics.json"
    path.write_bytes(change(path.read_text()).encode("utf-8", "surrogatepass"))
    with pytest.raises(ValueError, match=f"metrics.json {words}") as raised:
        read_evaluation(run.folder)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("change", [damage(measures__mig__version=0), damage(measures__mig=None)])
def test_an_old_measure_is_missing_the_others_stay(change, blob_run):
    run, evaluation = blob_run(), made_up()
    write_evaluation(run, evaluation)
    path = run.folder / "metrics.json"
    path.write_text(change(path.read_text()))
    found = read_evaluation(run.folder)
    assert found["missing"] == ["mig"]
    assert found["scores"] == {name: value for name, value in evaluation.scores.items() if name != "mig"}


def test_an_old_table_is_missing(blob_run):
    run = blob_run()
    write_evaluation(run, made_up())
    path = run.folder / "metrics.json"
    path.write_text(damage(tables__nmi__version=0)(path.read_text()))
    found = read_evaluation(run.folder)
    assert found["missing"] == ["nmi"] and found["nmi"] is None and found["importance"] is not None


def test_a_measure_that_the_program_does_not_know_is_left_out(blob_run):
    run, evaluation = blob_run(), made_up()
    write_evaluation(run, evaluation)
    path = run.folder / "metrics.json"
    path.write_text(damage(measures__gone={"value": 1.0, "version": 1})(path.read_text()))
    assert read_evaluation(run.folder)["scores"] == evaluation.scores


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no .*metrics\.json; fqvae evaluate .* writes it"):
        read_evaluation(tmp_path)


def test_old_results_stay_when_an_evaluation_fails(blob_run, monkeypatch):
    run = blob_run()
    write_evaluation(run, made_up())
    before = {each.name: each.read_bytes() for each in run.folder.iterdir() if each.is_file()}

    def unchanged():
        return before == {each.name: each.read_bytes() for each in run.folder.iterdir() if each.is_file()}

    def fails(*arguments, **options):
        raise ValueError("no")

    with monkeypatch.context() as patch:
        patch.setattr(inputs_module, "infomec", fails)
        with pytest.raises(ValueError, match="no"):
            write_evaluation(run, evaluate(run, train=8, test=4, classifier="histogram", jobs=1))
    assert unchanged()

    def full(path, target):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(OSError, match=r"could not write .*kept: No space left"):
            write_evaluation(run, made_up(shift=1.0))
    assert unchanged()
    write_evaluation(run, made_up(shift=1.0))
    assert not unchanged() and read_evaluation(run.folder)["scores"]["disentanglement"] == 1 / 3 + 1


def test_a_score_that_is_no_number_is_not_written(blob_run):
    run, evaluation = blob_run(), made_up()
    evaluation.scores["mse"] = float("inf")
    with pytest.raises(ValueError, match="JSON compliant"):
        write_evaluation(run, evaluation)
    assert not (run.folder / "metrics.json").exists()


def test_names_of_factors_with_commas_and_lines(blob_run, monkeypatch):
    run = blob_run()
    names = ("hue", "size, big", 'a "quoted" one', "two\nlines")
    monkeypatch.setattr(type(run.dataset), "factor_names", names)
    write_evaluation(run, made_up())
    for name in ("importance.csv", "nmi.csv"):
        with open(run.folder / name, newline="") as file:
            lines = list(csv.reader(file))
        assert {len(line) for line in lines} == {5}
        assert (lines[0][1:] if name.startswith("imp") else [line[0] for line in lines[1:]]) == list(names)
