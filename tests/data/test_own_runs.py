"""Runs on anybody's images: trained, resumed, opened again with the same images, and with no others."""

import pathlib

import numpy as np
import pytest
import test_own_images as own
import yaml
from ownset import ReopenedStripes, Stripes

from fqvae.cli import main
from fqvae.data import RayShapes, open_dataset
from fqvae.models.config import ConfigError
from fqvae.runs import DataConfig, from_flat, held_out, load_preset, open_run, read_checkpoint
from fqvae.runs import encode as encode_run
from fqvae.runs.config import differences

TINY = [
    "model.network.channels=4",
    "model.network.hidden=16",
    "model.latent.size=3",
    "model.latent.codebook_size=8",
    "model.discriminator.width=16",
    "batch_size=8",
    "steps=4",
    "checkpoint_every=2",
]


def config(*settings, model="qvae"):
    return load_preset("smoke", model, [*TINY, *settings])


def train(folder, *settings, **options):
    from fqvae.training.run import train as train_run

    return train_run(config(*settings), folder, device="cpu", **options)


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.syspath_prepend(pathlib.Path(__file__).parent)


@pytest.fixture(params=["npz", "folder"])
def digits(request, tmp_path):
    """Settings for the digits: 200 of them, labelled."""
    images, digit = own.GREY[:200], own.DIGITS.target[:200]
    if request.param == "npz":
        own.save(tmp_path / "digits.npz", images, factors=digit, factor_names=["digit"])
        return ["data.name=arrays", f"data.root={tmp_path / 'digits.npz'}"]
    folder = own.write_pictures(tmp_path / "digits", images)
    own.write_table(
        folder / "labels.csv",
        [["file", "digit"], *([f"{k:04d}.png", each] for k, each in enumerate(digit))],
    )
    return ["data.name=folder", f"data.root={folder}"]


def test_the_digits_from_training_to_pictures(digits, tmp_path, capsys):
    """Size and channels are not given: the preset's are for its own images."""
    out = tmp_path / "run"
    assert main(["train", "smoke", *TINY, *digits, "--device", "cpu", "--out", str(out)]) == 0
    written = yaml.safe_load((out / "config.yaml").read_text())
    assert written["data.size"] == 8 and written["data.channels"] == 1
    assert main(["train", "--resume", str(out), "--device", "cpu"]) == 0
    assert main(["train", "smoke", *TINY, *digits, "--resume", str(out), "--device", "cpu"]) == 0
    capsys.readouterr()
    assert main(["traverse", str(out), "--samples", "20"]) == 0
    assert "traversal-0.png" in capsys.readouterr().out
    run = open_run(out)
    encoded = encode_run(run, held_out(run.dataset, 20))
    assert encoded.codes.shape == (20, 3) and encoded.factors.shape == (20, 1)
    assert np.array_equal(encoded.factors[:, 0], own.DIGITS.target[:200][encoded.index])

    assert main(["train", "smoke", *TINY, *digits, "data.size=16", "--out", str(tmp_path / "b")]) == 1
    assert "8 pixels wide and 8 high, but data.size is 16" in capsys.readouterr().err
    assert not (tmp_path / "b").exists()


def test_a_run_goes_on_to_the_same_end(digits, tmp_path, monkeypatch):
    train(tmp_path / "whole", *digits)
    from fqvae.training.counters import Batches

    class StopError(Exception):
        pass

    batches = Batches.__iter__

    def ended(self):
        for number, batch in enumerate(batches(self)):
            if number == 3:
                raise StopError
            yield batch

    monkeypatch.setattr(Batches, "__iter__", ended)
    with pytest.raises(StopError):
        train(tmp_path / "half", *digits)
    monkeypatch.undo()
    assert read_checkpoint(tmp_path / "half").step == 2
    assert train(tmp_path / "half", *digits, resume=True).finished
    whole, half = (read_checkpoint(tmp_path / each) for each in ("whole", "half"))
    assert whole.config == half.config and whole.trained_on == half.trained_on
    assert all((half.state[name] == value).all() for name, value in whole.state.items())


def test_the_picture_says_what_the_labels_said(tmp_path):
    from fqvae.figures.runs import run_traversals

    path = own.save(tmp_path / "own.npz", factors=np.array(["cat", "dog"] * 10), factor_names=["animal"])
    train(tmp_path / "run", "data.name=arrays", f"data.root={path}", "steps=1")
    own.save(tmp_path / "plain.npz")
    train(tmp_path / "plain", "data.name=arrays", f"data.root={tmp_path / 'plain.npz'}", "steps=1")
    for name, caption in (("run", "\nanimal {}"), ("plain", "")):
        run = open_run(tmp_path / name)
        encoded = encode_run(run, np.array([4, 7]))
        for place, animal in enumerate(["cat", "dog"]):
            (axes,) = run_traversals(run, encoded, place).axes
            words = [text.get_text() for text in axes.texts]
            assert f"number {(4, 7)[place]} of arrays" + caption.format(animal) in words


def test_pictures_are_resized_to_the_size_of_the_preset_if_asked(tmp_path):
    path = own.save(tmp_path / "own.npz", own.colours(20, 10, 14))
    train(tmp_path / "run", "data.name=arrays", f"data.root={path}", "data.resize=true", "steps=1")
    assert open_run(tmp_path / "run").dataset.image_shape == (3, 32, 32)


def test_a_folder_for_converted_images(tmp_path, capsys):
    path = own.save(tmp_path / "own.npz")
    settings = ["data.name=arrays", f"data.root={path}", f"data.cache={tmp_path / 'cache'}"]
    train(tmp_path / "run", *settings, "steps=1")
    assert len(list((tmp_path / "cache").iterdir())) == 1
    path.unlink()
    assert main(["traverse", str(tmp_path / "run"), "--samples", "2"]) == 0
    assert not list(tmp_path.glob("*.npy"))
    (tmp_path / "file").touch()
    own.save(path)
    capsys.readouterr()
    settings[-1] = f"data.cache={tmp_path / 'file'}"
    assert main(["train", "smoke", *TINY, *settings, "--out", str(tmp_path / "b")]) == 1
    assert "data.cache=FOLDER" in capsys.readouterr().err
    assert main(["train", "smoke", "data.name=arrays", "--out", str(tmp_path / "b")]) == 1
    assert "data.root=PATH" in capsys.readouterr().err


def test_other_images_under_the_old_name_are_refused(tmp_path, capsys):
    path = own.save(tmp_path / "own.npz")
    train(tmp_path / "run", "data.name=arrays", f"data.root={path}")
    assert len(open_run(tmp_path / "run").dataset) == 20
    for images, words in (
        (own.colours(seed=1), "has images with other pixels"),
        (own.colours(30), "has 30 images, not 20"),
        (own.colours(20, 8, 8), "8 pixels wide and 8 high, but data.size is 16"),
    ):
        other = own.save(tmp_path / "other.npz", images)
        assert main(["traverse", str(tmp_path / "run"), "--root", str(other)]) == 1
        assert words in capsys.readouterr().err
        own.save(path, images)
        for command in (["traverse", str(tmp_path / "run")], ["train", "--resume", str(tmp_path / "run")]):
            assert main(command) == 1
            assert words in capsys.readouterr().err
    own.save(path)
    own.save(tmp_path / "moved.npz")
    path.unlink()
    (tmp_path / "own.npz.images.npy").unlink()
    assert main(["traverse", str(tmp_path / "run"), "--samples", "2"]) == 1
    assert "there is no file" in capsys.readouterr().err
    assert len(open_run(tmp_path / "run", root=tmp_path / "moved.npz").dataset) == 20


def test_a_set_given_in_python_that_says_how_it_is_opened(tmp_path):
    given = ReopenedStripes(30, 5)
    size = ["data.size=8", "data.channels=1"]
    train(tmp_path / "run", *size, dataset=given)
    data = read_checkpoint(tmp_path / "run").config.data
    assert data.name == "ownset:stripes" and data.function_arguments() == {"count": 30, "seed": 5}
    opened = open_run(tmp_path / "run").dataset
    assert isinstance(opened, ReopenedStripes) and (opened.pixels == given.pixels).all()
    assert main(["traverse", str(tmp_path / "run"), "--samples", "3"]) == 0
    assert train(tmp_path / "run", *size, dataset=given, resume=True).finished
    assert main(["train", "--resume", str(tmp_path / "run"), "--device", "cpu"]) == 0


def test_a_set_given_in_python_that_does_not_is_not_replaced(tmp_path, capsys):
    """Not by RayShapes, which the preset names."""
    size = ["data.size=8", "data.channels=1"]
    train(tmp_path / "run", *size, dataset=Stripes())
    assert read_checkpoint(tmp_path / "run").config.data.name == "stripes"
    for command in (["traverse"], ["codes"], ["evaluate"], ["report"], ["train", "--resume"]):
        assert main([*command, str(tmp_path / "run")]) == 1
        error = capsys.readouterr().err
        assert "'stripes', a set that was given in Python" in error and "dataset=" in error
    assert len(open_run(tmp_path / "run", dataset=Stripes()).dataset) == 40
    for other in (Stripes(seed=1), Stripes(41), RayShapes(32)):
        with pytest.raises(ValueError, match="was trained on other images"):
            open_run(tmp_path / "run", dataset=other)
    assert train(tmp_path / "run", *size, dataset=Stripes(), resume=True).finished
    with pytest.raises(ValueError, match="was trained on other images"):
        train(tmp_path / "run", *size, dataset=Stripes(seed=1), resume=True)


def test_a_set_that_calls_itself_like_another(tmp_path):
    impostor = Stripes()
    impostor.name = "rayshapes"
    train(tmp_path / "run", "data.size=8", "data.channels=1", dataset=impostor)
    with pytest.raises(ValueError, match="'rayshapes', a set that was given in Python"):
        open_run(tmp_path / "run")


def test_rayshapes_given_in_python_keep_their_ties(tmp_path):
    given = RayShapes(32, correlated={"wall_hue": "floor_hue"}, strength=0.5)
    train(tmp_path / "run", "steps=1", dataset=given)
    run = open_run(tmp_path / "run")
    assert run.dataset.correlation.pairs == {"wall_hue": "floor_hue"}
    assert run.dataset.correlation.strength == 0.5


def test_a_set_by_a_function_need_not_say_how_it_is_opened(tmp_path):
    """The configuration does."""
    train(tmp_path / "run", "data.name=ownset:plain_stripes", "steps=2")
    assert len(open_run(tmp_path / "run").dataset) == 40
    assert main(["traverse", str(tmp_path / "run"), "--samples", "2"]) == 0
    assert main(["train", "--resume", str(tmp_path / "run"), "--device", "cpu"]) == 0


def test_channels_that_a_set_does_not_have():
    for name, size, there in (("rayshapes", 32, 3), ("ownset:stripes", 8, 1)):
        assert open_dataset(name, size=size, channels=there).image_shape[0] == there
        with pytest.raises(ValueError, match=rf"^channels must be those of .*, {there}, but was {4 - there}"):
            open_dataset(name, channels=4 - there)


def test_labels_that_were_corrected_are_measured_anew(tmp_path, capsys):
    """The same images with other labels, under the same name."""
    images, digit = own.GREY[:200], own.DIGITS.target[:200]
    file, folder = tmp_path / "digits.npz", tmp_path / "run"

    def evaluate():
        assert main(["evaluate", str(folder), "--train", "12", "--test", "6"]) == 0
        printed = capsys.readouterr().out
        return "measured before" in printed, "no labels" in printed

    own.save(file, images)
    train(folder, "data.name=arrays", f"data.root={file}")
    assert evaluate() == (False, True) and evaluate() == (True, True)
    own.save(file, images, factors=digit, factor_names=["digit"])
    assert evaluate() == (False, False) and evaluate() == (True, False)
    own.save(file, images, factors=9 - digit, factor_names=["digit"])
    assert evaluate() == (False, False)


@pytest.mark.parametrize("how", [5, {"root": "x"}, {"name": "arrays", "path": "x"}])
def test_a_reopen_that_gives_something_else(tmp_path, how):
    given = Stripes()
    given.reopen = lambda: how
    with pytest.raises((ValueError, TypeError)):
        train(tmp_path / "run", "data.size=8", "data.channels=1", dataset=given)
    assert not (tmp_path / "run").exists()


def test_a_set_by_its_function(tmp_path):
    data = open_dataset("ownset:stripes", "somewhere", arguments={"seed": 3})
    assert data.root == "somewhere" and data.seed == 3
    train(tmp_path / "run", "data.name=ownset:stripes", 'data.arguments={"count": 25}', "steps=1")
    assert len(open_run(tmp_path / "run").dataset) == 25
    assert read_checkpoint(tmp_path / "run").config.data.image_shape == (1, 8, 8)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ownset:unmarked", "not marked with fqvae.data.opener"),
        ("os:system", "not marked with fqvae.data.opener"),
        ("ownset:missing", "has no attribute 'missing'"),
        ("no_such_module:f", "No module named 'no_such_module'.*PYTHONPATH"),
        (":f", "must be package.module:function"),
        ("ownset:", "must be package.module:function"),
        ("ownset:nothing", "must give an ImageDataset"),
    ],
)
def test_functions_that_are_none(name, message):
    """A configuration may come from anybody: it can call nothing but what is meant for it."""
    with pytest.raises((ValueError, TypeError), match=message):
        open_dataset(name)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["data.name=arrays", "data.resize=true", "data.size=0"], "data.resize needs data.size"),
        (["data.resize=true"], "data.resize is for arrays and folder only, but data.name was 'rayshapes'"),
        (["data.size=-8"], "data.size must be at least 1, but was -8"),
        (["data.channels=2"], "data.channels must be 1 or 3, but was 2"),
        (["data.name=a:b", "data.arguments=[1]"], "data.arguments must be a JSON object"),
        (["data.arguments={}", "data.name=a:b", "data.arguments={"], "data.arguments must be a JSON object"),
        (['data.arguments={"a": 1}'], "data.arguments are for package.module:function only"),
    ],
)
def test_settings_that_do_not_fit(settings, message):
    with pytest.raises(ConfigError, match=message):
        config(*settings)


def test_a_size_that_is_left_to_the_images_is_no_difference():
    left = config("data.name=arrays", "data.root=a.npz", "data.cache=x")
    assert (left.data.size, left.data.channels) == (0, 0)
    found = config("data.name=arrays", "data.size=8", "data.channels=1", "data.root=b.npz")
    assert differences(left, found) == [] == differences(found, left)
    other = config("data.name=arrays", "data.size=16", "data.channels=1")
    assert differences(found, other) == ["data.size is 16 there and 8 here"]
    assert (DataConfig().size, DataConfig().channels) == (64, 3)
    assert from_flat({"data.name": "shapes3d"}).data.image_shape == (3, 64, 64)
