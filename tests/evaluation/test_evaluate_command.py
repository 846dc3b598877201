"""`fqvae evaluate`."""

import os

import numpy as np
import pytest
import torch

import fqvae.evaluation.inputs as inputs_module
import fqvae.runs.run as run_module
from fqvae.cli import main
from fqvae.evaluation import read_evaluation

SHORT = ("perplexity", "codes_used", "capacity")  # shown with one decimal
SMALL = ["--train", "16", "--test", "8", "--classifier", "histogram", "--jobs", "1", "--device", "cpu"]


@pytest.fixture(autouse=True)
def blobs(monkeypatch):
    from blobset import BlobSet

    monkeypatch.setattr(run_module, "open_data", lambda data, root: BlobSet())


@pytest.fixture
def encodings(monkeypatch):
    """The folders that were encoded, in a list."""
    folders, original = [], inputs_module.encode

    def counted(run, index, **options):
        folders.append(run.folder.name)
        return original(run, index, **options)

    monkeypatch.setattr(inputs_module, "encode", counted)
    return folders


def measures_shown(printed):
    return dict(line.split() for line in printed.splitlines() if line.startswith("  "))


def evaluate(*arguments):
    return main(["evaluate", *map(str, arguments), *SMALL])


def test_a_run_is_measured_once(copy_of, encodings, capsys):
    folder = copy_of("factorqvae")
    assert evaluate(folder) == 0
    printed = capsys.readouterr()
    content = read_evaluation(folder)
    assert printed.out.startswith(f"{folder}: factorqvae at step 80 of 80\n") and printed.err == ""
    shown = measures_shown(printed.out)
    assert list(shown) == list(content["scores"]) and len(shown) == 24
    for name, score in content["scores"].items():
        digits = 0.06 if name in SHORT else 6e-4
        assert float(shown[name]) == pytest.approx(score, rel=0.01, abs=digits)
    assert {"importance.csv", "nmi.csv"} <= {each.name for each in folder.iterdir()}

    written = (folder / "metrics.json").read_bytes()
    assert evaluate(folder / "last.ckpt") == 0 and encodings == ["run"]
    assert (folder / "metrics.json").read_bytes() == written
    assert capsys.readouterr().out.startswith(f"{folder} (measured before): factorqvae")

    # Again if asked, with another option, with another checkpoint, and if the file is damaged.
    assert evaluate(folder, "--again") == 0 and len(encodings) == 2
    assert read_evaluation(folder)["scores"] == content["scores"]
    assert main(["evaluate", str(folder), *SMALL, "--order", "index"]) == 0 and len(encodings) == 3
    assert read_evaluation(folder)["options"]["order"] == "index"
    checkpoint = torch.load(folder / "last.ckpt", weights_only=True)
    checkpoint["state_dict"]["autoencoder.latent.codebook"] *= -1
    torch.save(checkpoint, folder / "last.ckpt")
    assert main(["evaluate", str(folder), *SMALL, "--order", "index"]) == 0 and len(encodings) == 4
    (folder / "metrics.json").write_bytes(written[: len(written) // 2])
    assert evaluate(folder) == 0 and len(encodings) == 5
    assert read_evaluation(folder)["options"]["order"] == "rank"


def test_several_runs_end_in_a_table(copy_of, encodings, capsys):
    folders = [copy_of("factorqvae", "f"), copy_of("vae", "v")]
    assert evaluate(folders[0]) == 0
    capsys.readouterr()
    assert evaluate(*folders) == 0 and encodings == ["f", "v"]
    printed = capsys.readouterr().out
    rows = [line for line in printed.splitlines() if line.startswith("|")]
    assert rows[0] == "| model | seeds | D | C | I | InfoM | InfoC | InfoE | MSE |"
    scores = read_evaluation(folders[1])["scores"]
    assert rows[2].startswith(f"| vae | 1 | {scores['disentanglement']:.3f} | ")
    assert rows[3].startswith("| factorqvae | 1 | ") and len(rows) == 4
    assert "perplexity" not in printed.split("vae at step")[2].split("| model")[0]


def test_errors_are_one_line_and_lose_nothing(copy_of, encodings, capsys, tmp_path):
    folder, broken = copy_of("factorqvae", "f"), copy_of("vae", "v")
    assert evaluate(folder) == 0
    written = (folder / "metrics.json").read_bytes()
    capsys.readouterr()
    (tmp_path / "empty").mkdir()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "last.ckpt").write_bytes((folder / "last.ckpt").read_bytes()[:999])
    for arguments, words in (
        ([tmp_path / "empty"], "there is no checkpoint last.ckpt in the folder"),
        ([broken, tmp_path / "empty"], "there is no checkpoint last.ckpt in the folder"),
        ([tmp_path / "nothing"], "there is no run or checkpoint"),
        ([tmp_path / "damaged"], "is damaged, or is not a checkpoint"),
        ([], "name a run: fqvae evaluate RUN"),
        ([folder, "--seed", "-1"], "seed must be at least 0, but was -1"),
        ([folder, "--again", "--test", "8000"], "train + test must be at most 25, the test images of blobs"),
    ):
        order = [*map(str, arguments)]
        assert main(["evaluate", *SMALL, *order]) == 1
        error = capsys.readouterr().err
        assert error.startswith("fqvae: error: ") and words in error and error.count("\n") == 1
    # The second one is looked at before the first one is measured.
    assert encodings == ["f"] and not (broken / "metrics.json").exists()

    checkpoint = torch.load(broken / "last.ckpt", weights_only=True)
    checkpoint["state_dict"]["autoencoder.decoder.0.weight"][:] = np.nan
    torch.save(checkpoint, broken / "last.ckpt")
    assert evaluate(folder, broken) == 1
    assert (
        f"{broken}: {broken / 'last.ckpt'} reconstructs images with an error of nan"
        in capsys.readouterr().err
    )
    assert (folder / "metrics.json").read_bytes() == written
    assert not [each for each in os.listdir(broken) if each.endswith((".tmp", ".json"))]


def test_interrupted(copy_of, monkeypatch, capsys):
    folder = copy_of("factorqvae")

    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(inputs_module, "dci", interrupt)
    assert evaluate(folder) == 130
    assert capsys.readouterr().err.startswith("interrupted;") and not (folder / "metrics.json").exists()


def test_options_reach_the_evaluation(copy_of, monkeypatch):
    folder, seen = copy_of("factorqvae"), []
    monkeypatch.setattr(run_module, "open_data", lambda data, root: seen.append(root))

    def stop(run, **options):
        seen.append(options)
        raise ValueError("stop")

    monkeypatch.setattr("fqvae.evaluation.evaluate", stop)
    words = [
        "--train",
        "5",
        "--test",
        "4",
        "--seed",
        "3",
        "--order",
        "index",
        "--jobs",
        "2",
        "--root",
        "there",
    ]
    assert main(["evaluate", *words, str(folder)]) == 1
    assert str(seen[0]) == "there"
    expected = {"train": 5, "test": 4, "seed": 3, "classifier": "boosting", "order": "index"}
    expected |= {"protocol": "held-out", "jobs": 2, "known": None}
    assert seen[1] == {**expected, "progress": seen[1]["progress"]}
    assert main(["evaluate", str(folder)]) == 1
    assert seen[3]["train"] is None and seen[3]["test"] is None and seen[3]["jobs"] is None
