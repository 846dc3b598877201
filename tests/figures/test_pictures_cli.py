"""`fqvae traverse`, `codes` and `plot`, on runs that were never trained."""

import json

import numpy as np
import pytest
import torch
from picture_runs import VECTORS, evaluation, write_run
from PIL import Image

pytest.importorskip("matplotlib")

from fqvae.cli import main
from fqvae.figures import runs
from fqvae.models import to_uint8
from fqvae.runs import encode, held_out, open_run
from fqvae.runs.picture import write_reconstructions


def files(*stems):
    return {f"{stem}.{suffix}" for stem in stems for suffix in ("png", "svg")}


def names(folder):
    return {each.name for each in folder.iterdir()}


@pytest.fixture
def evaluated(tmp_path, monkeypatch):
    """A run with a metrics.json, as `read_evaluation` gives it."""
    run = write_run(tmp_path / "run")
    found = evaluation(run)
    monkeypatch.setattr("fqvae.evaluation.files.read_evaluation", lambda folder: found)
    return run, found


def test_the_three_commands(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run = write_run(tmp_path / "run")
    for command, stems, missing in (
        (
            ["traverse", "run", "--samples", "20"],
            ["traversal-0", "reconstructions"],
            "which factors latents",
        ),
        (
            ["traverse", "--image", "30", "run", "--samples", "20"],
            ["traversal-30", "reconstructions"],
            "which",
        ),
        (["codes", "run", "--samples", "20"], ["codes"], "which factors latents are named after"),
        (["plot", "run/last.ckpt"], ["training"], "heat maps of mutual information and importance"),
    ):
        assert main(command) == 0
        *printed, left_out = capsys.readouterr().out.splitlines()
        assert printed == [
            f"run/pictures/{stem}.{suffix}"
            for stem in stems
            for suffix in (
                ("png",)
                if stem == "reconstructions"
                else ("png", "svg", "gif")
                if stem.startswith("traversal")
                else ("png", "svg")
            )
        ]
        assert left_out.startswith(f"left out: {missing}")
        assert "there is no run/metrics.json" in left_out and "fqvae evaluate run" in left_out
    assert names(run / "pictures") == files("traversal-0", "traversal-30", "codes", "training") | {
        "reconstructions.png",
        "traversal-0.gif",
        "traversal-30.gif",
    }

    assert main(["plot", "run", "--out", "else/where"]) == 0
    assert names(tmp_path / "else" / "where") == files("training")


def test_the_image_is_the_one_of_that_number(tmp_path, monkeypatch):
    run = write_run(tmp_path / "run")
    moved = []

    def record(run, encoded, base, *rest):
        moved.append((encoded.index[base], len(encoded.index)))
        return runs.run_codes(run, encoded)

    monkeypatch.setattr(runs, "run_traversals", record)
    for image in (0, 4, 5, 30):
        assert main(["traverse", str(run), "--samples", "5", "--image", str(image)]) == 0
    order = held_out(open_run(run).dataset, 31)
    assert moved == [(order[0], 5), (order[4], 5), (order[5], 6), (order[30], 6)]


def test_what_an_evaluation_adds(evaluated, capsys):
    run, found = evaluated
    assert main(["plot", str(run)]) == 0
    assert names(run / "pictures") == files("training", "nmi", "importance", "nmi_latents")
    assert "left out" not in capsys.readouterr().out

    maps = runs.score_heatmaps(found)
    held = {name: figure.axes[0].images[0].get_array() for name, figure in maps.items()}
    np.testing.assert_array_equal(held["nmi"], found["nmi"])
    # What nearest neighbours estimate of a latent that tells all may exceed 1.
    more = dict(found, nmi=(np.array(found["nmi"]) * 0 + 1.13).tolist())
    assert (runs.score_heatmaps(more)["nmi"].axes[0].images[0].get_array() == 1).all()
    np.testing.assert_array_equal(held["importance"], np.transpose(found["importance"]))
    factors = [tick.get_text() for tick in maps["nmi"].axes[0].get_yticklabels()]
    assert factors == ["floor hue", "wall hue", "object hue", "scale", "shape", "orientation"]

    found["checkpoint"]["sha256"] = "0" * 64
    assert main(["plot", str(run), "--out", str(run / "new")]) == 0
    assert names(run / "new") == files("training")
    assert "metrics.json is of another checkpoint, of step 7; fqvae evaluate" in capsys.readouterr().out


def test_dollars_are_no_mathematics(evaluated, capsys):
    """They may be in names of factors and folders; matplotlib takes what is between two for a formula."""
    run, found = evaluated
    found["data"]["factor_names"][4] = "price $a_b$"
    found["data"]["factor_names"][1] = "y$_$pos"
    run = run.rename(run.with_name("a$_$b"))
    capsys.readouterr()
    for command in ("traverse", "codes", "plot"):
        assert main([command, str(run)] + ["--samples", "20"] * (command != "plot")) == 0
    assert "price $a b$" in (run / "pictures" / "nmi.svg").read_text()


def test_a_damaged_evaluation_is_left_out(tmp_path, capsys):
    run = write_run(tmp_path / "run")
    (run / "metrics.json").write_text(json.dumps({"format": 2}))
    assert main(["plot", str(run)]) == 0
    assert "metrics.json is damaged" in capsys.readouterr().out
    assert names(run / "pictures") == files("training")


@pytest.mark.parametrize(
    ("model", "settings", "note"),
    [
        ("qvae", [], "codes that it uses on 21 held-out images, in the order of their values"),
        ("qlae", [], "in the order of their values"),
        ("qvae", ["model.latent.sorted=true"], "in the order of their values"),
        ("qvae", VECTORS, "in the order of their indices, since vectors have no order"),
        ("vae", [], "from the 1st to the 99th percentile of its values on 21 held-out images"),
    ],
)
def test_a_runs_traversal(model, settings, note, tmp_path):
    run = open_run(write_run(tmp_path / "run", model, *settings))
    index = held_out(run.dataset, 21)
    encoded = encode(run, index)
    figure = runs.run_traversals(run, encoded, 3, 4, evaluation(run.folder))
    (axes,) = figure.axes
    written = [text.get_text() for text in axes.texts]
    assert note in written[-1].replace("\n", " ")
    assert "shape 0.75" in written and "wall hue 0.50" in written and "no single factor" in written
    assert any(str(index[3]) in text for text in written)

    original, *rows = axes.images
    np.testing.assert_array_equal(
        original.get_array(), run.dataset.images(index[3:4])[0].permute(1, 2, 0).numpy()
    )
    assert len(axes.patches) == 3
    base = to_uint8(run.model(run.dataset.images(index[3:4])))[0].permute(1, 2, 0).numpy()
    for patch in axes.patches:
        at = (patch.get_x() + 2, patch.get_y() + 2)
        (framed,) = [image for image in rows if (image.get_extent()[0], image.get_extent()[3]) == at]
        assert np.abs(framed.get_array().astype(int) - base).max() <= 1
    if run.discrete:
        used = [len(np.unique(column)) for column in encoded.codes.T]
        assert [f"{count} codes" if count > 1 else "1 code" for count in used] == [
            text for text in written if text.endswith((" codes", " code"))
        ]
        assert len(rows) == sum(min(count, 4) for count in used)


def test_code_figures_name_the_factors(tmp_path):
    for model, heights in (("qvae", 8), ("vae", 41)):
        run = open_run(write_run(tmp_path / model, model))
        figure = runs.run_codes(run, encode(run, held_out(run.dataset, 20)), evaluation(run.folder))
        titles = [axes.get_title("left") for axes in figure.axes]
        assert titles == ["latent 0: shape", "latent 1: no single factor", "latent 2: wall hue"]
        assert [len(axes.patches) for axes in figure.axes] == [heights] * 3
        assert "20 held-out images" in figure.get_suptitle()


def test_reconstructions_of_a_run(tmp_path):
    run = open_run(write_run(tmp_path / "run"))
    index = held_out(run.dataset, 3)
    write_reconstructions(run, index, tmp_path / "pairs.png")
    with Image.open(tmp_path / "pairs.png") as file:
        shown = np.asarray(file)[1::3, 1::3]  # 32 pixels and two of the frame, each three times as large
    originals = run.dataset.images(index)
    for column, (given, made) in enumerate(zip(originals, to_uint8(run.model(originals)), strict=True)):
        across = slice(34 * column, 34 * column + 34)
        np.testing.assert_array_equal(shown[1:33, across][:, 1:33], given.permute(1, 2, 0).numpy())
        below = shown[35:67, across][:, 1:33]
        assert np.abs(below.astype(int) - made.permute(1, 2, 0).numpy()).max() <= 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["traverse"], "name one run, a folder or a checkpoint, but there were 0 names"),
        (["codes", "run", "run"], "but there were 2 names"),
        (["plot", "nothing"], "there is no run or checkpoint nothing"),
        (["codes", "folder"], "there is no checkpoint last.ckpt in the folder folder"),
        (
            ["traverse", "run", "--image", "-1"],
            "--image must be at least 0 and --steps at least 1, but were -1",
        ),
        (["traverse", "run", "--steps", "0"], "but were 0 and 0"),
        (
            ["traverse", "run", "--image", "48000"],
            "--image must be below 48000, the test images of rayshapes",
        ),
        (["codes", "run", "--samples", "0"], "samples must be at least 1 and at most 48000"),
        (["codes", "empty/metrics.csv"], "empty/metrics.csv is damaged, or is not a checkpoint"),
        (["plot", "empty"], "empty/metrics.csv is no table of numbers: it has no rows"),
        (
            ["codes", "run", "--samples", "9", "--out", "run/last.ckpt/x"],
            "cannot write in run/last.ckpt/x: ",
        ),
    ],
)
def test_errors_are_one_line(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run = write_run(tmp_path / "run")
    (tmp_path / "folder").mkdir()
    write_run(tmp_path / "empty")
    (tmp_path / "empty" / "metrics.csv").write_text("step\n")
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("fqvae: error: ") and words in error and error.count("\n") == 1
    assert names(run) == {"last.ckpt", "metrics.csv"}


@pytest.mark.parametrize("command", ["traverse", "codes", "plot"])
def test_a_place_that_cannot_be_written_is_known_before_the_work(command, tmp_path, monkeypatch, capsys):
    def unexpected(*_, **__):
        raise AssertionError("the work has begun")

    run = write_run(tmp_path / "run")
    (run / "pictures").write_text("a file where a folder belongs")
    monkeypatch.setattr("fqvae.runs.encode", unexpected)
    monkeypatch.setattr("fqvae.figures.training_curves", unexpected)
    assert main([command, str(run)]) == 1
    error = capsys.readouterr().err
    assert error == f"fqvae: error: cannot write in {run / 'pictures'}: Not a directory\n"


def test_no_metrics_csv(tmp_path, capsys):
    run = write_run(tmp_path / "run")
    (run / "metrics.csv").unlink()
    assert main(["plot", str(run)]) == 1
    assert "metrics.csv" in capsys.readouterr().err
    assert names(run) == {"last.ckpt"}


def test_a_picture_that_cannot_be_drawn_leaves_the_old_one(tmp_path, monkeypatch, capsys):
    run = write_run(tmp_path / "run")
    assert main(["plot", str(run)]) == 0
    before = (run / "pictures" / "training.png").read_bytes()
    (run / "metrics.csv").write_text("step,loss\n1,many\n")
    assert main(["plot", str(run)]) == 1
    assert "metrics.csv is no table of numbers" in capsys.readouterr().err
    assert (run / "pictures" / "training.png").read_bytes() == before


def test_plot_needs_a_whole_checkpoint(tmp_path, capsys):
    run = write_run(tmp_path / "run")
    whole = (run / "last.ckpt").read_bytes()
    (run / "last.ckpt").write_bytes(whole[: len(whole) // 2])
    assert main(["plot", str(run)]) == 1
    error = capsys.readouterr().err
    assert "last.ckpt is damaged, or is not a checkpoint" in error and error.count("\n") == 1


class GreyUnlabelled:
    """400 grey images without labels."""

    name = "greys"
    factor_names = factor_sizes = ()
    image_shape = (1, 32, 32)

    def __len__(self):
        return 400

    def factors(self, index):
        return torch.zeros((len(index), 0), dtype=torch.int64)

    def images(self, index):
        columns = torch.arange(32)
        rows = [(columns * (1 + int(number) % 7) + int(number)) % 256 for number in index]
        return torch.stack(rows)[:, None, None].expand(-1, -1, 32, -1).to(torch.uint8)


@pytest.mark.parametrize("model", ["qvae", "vae"])
def test_grey_images_without_labels(model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("fqvae.runs.run.open_data", lambda *_: GreyUnlabelled())
    run = write_run(tmp_path / "run", model, "data.channels=1")
    for command in (["traverse", "run"], ["codes", "run"]):
        assert main(command) == 0
        left_out = capsys.readouterr().out.splitlines()[-1]
        assert left_out == "left out: which factors latents are named after: the images have no labels"
    opened = open_run(run)
    encoded = encode(opened, held_out(opened.dataset, 20))
    found = evaluation(run) | {"nmi": None, "importance": None, "data": {"factor_names": []}}
    figure = runs.run_traversals(opened, encoded, 0, 4, found)
    assert (
        figure.axes[0].images[0].get_array()
        == opened.dataset.images(encoded.index[:1])[0, 0, :, :, None].numpy()
    ).all()
    assert not any("factor" in text.get_text() for text in figure.axes[0].texts)
    titles = [axes.get_title("left") for axes in runs.run_codes(opened, encoded, found).axes]
    assert titles == ["latent 0", "latent 1", "latent 2"]
    assert list(runs.score_heatmaps(found)) == ["nmi_latents"]

    monkeypatch.setattr("fqvae.evaluation.files.read_evaluation", lambda folder: found)
    assert main(["plot", "run"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("importance: the images have no labels")
