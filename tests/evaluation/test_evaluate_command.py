"""`fqvae evaluate`."""

import io
import json
import os
import re

import numpy as np
import pytest
import torch

import fqvae.evaluation.inputs as inputs_module
import fqvae.runs.run as run_module
from fqvae.cli import main
from fqvae.cli.printing import make_printable
from fqvae.evaluation import MEASURES, read_evaluation

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
    return dict(line.split() for line in printed.splitlines() if len(line.split()) == 2 and line[:2] == "  ")


def evaluate(*arguments):
    return main(["evaluate", *map(str, arguments), *SMALL])


def test_a_run_is_measured_once(copy_of, encodings, capsys):
    folder = copy_of("factorqvae")
    assert evaluate(folder) == 0
    printed = capsys.readouterr()
    content = read_evaluation(folder)
    assert printed.out.startswith(f"{folder}: factorqvae at step 80 of 80\n") and printed.err == ""
    shown = measures_shown(printed.out)
    assert list(shown) == list(content["scores"]) == [each.name for each in MEASURES]
    for name, score in content["scores"].items():
        digits = 0.06 if name in SHORT else 6e-4
        assert float(shown[name]) == pytest.approx(score, rel=0.01, abs=digits)
    assert {"importance.csv", "nmi.csv"} <= {each.name for each in folder.iterdir()}

    assert "What went wrong, what to try:\n" in printed.out
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
    checkpoint["state_dict"]["autoencoder.latent.quantizer.codebook"] *= -1
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
    assert (
        capsys.readouterr().err.startswith("fqvae: interrupted;") and not (folder / "metrics.json").exists()
    )


def test_only_what_is_old_is_measured_and_the_output_says_so(copy_of, encodings, capsys):
    folder = copy_of("factorqvae")
    assert evaluate(folder) == 0
    path = folder / "metrics.json"
    content = json.loads(path.read_text())
    content["measures"]["mig"]["version"] = 0
    content["measures"]["sap"]["value"] = 0.625  # as nobody would measure it
    path.write_text(json.dumps(content))
    capsys.readouterr()
    assert evaluate(folder) == 0 and encodings == ["run", "run"]
    printed = capsys.readouterr().out
    assert printed.startswith(f"{folder} (measured before, but for mig): factorqvae")
    assert read_evaluation(folder)["missing"] == [] and read_evaluation(folder)["scores"]["sap"] == 0.625
    assert evaluate(folder) == 0 and encodings == ["run", "run"]
    assert capsys.readouterr().out.startswith(f"{folder} (measured before): factorqvae")


def test_results_go_where_they_are_wanted(copy_of, encodings, tmp_path, capsys):
    one, other, out = copy_of("factorqvae", "f"), copy_of("vae", "v"), tmp_path / "out" / "there"
    assert evaluate(one, "--out", out) == 0
    assert read_evaluation(out)["model"] == "factorqvae" and not (one / "metrics.json").exists()
    assert {each.name for each in out.iterdir()} == {"metrics.json", "importance.csv", "nmi.csv"}
    assert evaluate(one, "--out", out) == 0 and encodings == ["f"]
    both = tmp_path / "both"
    assert evaluate(one, other, "--out", both) == 0
    assert read_evaluation(both / "v")["model"] == "vae" and "| factorqvae | 1 |" in capsys.readouterr().out
    twin = copy_of("vae", "more/v")
    assert evaluate(other, twin, "--out", both) == 1
    assert f"would both write in {both / 'v'}" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_found_before_any_work(copy_of, encodings, tmp_path, capsys):
    one, other = copy_of("factorqvae", "f"), copy_of("vae", "v")
    (tmp_path / "file").write_text("")
    assert evaluate(one, "--out", tmp_path / "file") == 1
    error = capsys.readouterr().err
    assert f"cannot write in {tmp_path / 'file'}" in error and error.count("\n") == 1 and encodings == []
    # Not even the first of two is measured. What was measured before needs no writing.
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "v").write_text("")
    assert evaluate(one, other, "--out", tmp_path / "out") == 1 and encodings == []
    assert evaluate(one) == 0 and encodings == ["f"]
    capsys.readouterr()


def test_measures_are_printed_although_writing_fails(copy_of, monkeypatch, capsys):
    folder = copy_of("factorqvae")

    def full(path, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert evaluate(folder) == 1
    printed = capsys.readouterr()
    assert len(measures_shown(printed.out)) == len(MEASURES) and "No space left on device" in printed.err


def test_an_encoding_without_the_characters(copy_of, monkeypatch):
    folders = [copy_of("vae", "f"), copy_of("vae", "g")]
    checkpoint = torch.load(folders[1] / "last.ckpt", weights_only=True)
    checkpoint["fqvae"]["config"]["seed"] = 7
    torch.save(checkpoint, folders[1] / "last.ckpt")
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True)
    monkeypatch.setattr("sys.stdout", stream)
    assert evaluate(*folders) == 0
    printed = stream.buffer.getvalue().decode("ascii")
    assert re.search(r"\| vae \| 2 \| \d\.\d{3} \+- \d", printed) and "?" not in printed


def test_plain_characters():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True)
    make_printable(stream, object())
    stream.write("1 \u00b1 2 \u00d7 \u03b2 \u2013 caf\u00e9 \u4e2d")
    assert stream.buffer.getvalue() == b"1 +- 2 x beta - cafe ?"
    wide = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    make_printable(wide)
    wide.write("\u00b1")
    assert wide.buffer.getvalue() == "\u00b1".encode()


@pytest.mark.parametrize("command", ["evaluate", "report"])
def test_interrupted_before_anything(command, copy_of, monkeypatch, capsys):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("fqvae.runs.checkpoint.read_plain", interrupt)
    assert main([command, str(copy_of("vae"))]) == 130
    error = capsys.readouterr().err
    assert error.startswith("fqvae: interrupted") and error.count("\n") == 1


def test_damaged_curves_are_said_to_be(copy_of, capsys):
    folder = copy_of("vae")
    (folder / "metrics.csv").write_text("step,loss\n1,x\n")
    assert evaluate(folder) == 0
    printed = capsys.readouterr()
    assert (
        "metrics.csv is no table of numbers" in printed.err and "nothing is said of the curves" in printed.err
    )


def test_options_reach_the_evaluation(copy_of, monkeypatch):
    folder, seen = copy_of("factorqvae"), []
    opened = run_module.open_data

    def open_data(data, root):
        seen.append(root)
        return opened(data, root)

    monkeypatch.setattr(run_module, "open_data", open_data)

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
