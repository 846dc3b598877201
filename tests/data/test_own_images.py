"""Anybody's images from an npz file or a folder, against the arrays that were written."""

import csv
import itertools
import pathlib
import pickle
import re

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from fqvae.data import ArrayImages, FolderImages, has_full_grid, open_dataset, split

DIGITS = load_digits()
GREY = (DIGITS.images * 255 / 16).round().astype(np.uint8)  # (1797, 8, 8)
NAMES = np.array(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"])


def colours(count=20, height=16, width=16, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3)).astype(np.uint8)


def save(path, images=None, write=np.savez, **more):
    write(path, images=colours() if images is None else images, **more)
    return path


def write_pictures(folder, images, names=None, **options):
    """PNG files, 0000.png and so on if no names are given."""
    for number, image in enumerate(images):
        path = folder / (f"{number:04d}.png" if names is None else names[number])
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path, **options)
    return folder


def write_table(path, rows):
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def everything(dataset):
    return dataset.images(np.arange(len(dataset))).numpy()


def refused(kind, root, message, error=ValueError, **options):
    """The set is refused with these words, in one line, and leaves nothing beside its root."""
    before = sorted(root.parent.iterdir())
    with pytest.raises(error, match=message) as raised:
        kind(root, **options)
    assert "\n" not in str(raised.value) and root.name in str(raised.value)
    assert sorted(root.parent.iterdir()) == before


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("batch", [200, 1 << 24])
@pytest.mark.parametrize("layout", ["HW", "HWC", "CHW", "HW1"])
def test_arrays_of_every_layout(tmp_path, monkeypatch, write, batch, layout):
    monkeypatch.setattr("fqvae.data.archive.BATCH_BYTES", batch)
    images = colours()
    truth = images.transpose(0, 3, 1, 2)
    if layout in ("HW", "HW1"):
        truth = truth[:, :1]
        images = images[..., 0] if layout == "HW" else images[..., :1]
    elif layout == "CHW":
        images = np.ascontiguousarray(truth)
    data = open_dataset("arrays", save(tmp_path / "own.npz", images, write))
    assert data.image_shape == truth.shape[1:] and len(data) == 20 and data.name == "arrays"
    assert np.array_equal(everything(data), truth)
    index = torch.tensor([3, 19, 3])
    assert np.array_equal(data.images(index).numpy(), truth[[3, 19, 3]])
    assert data.factor_names == data.factor_sizes == () and data.factors(index).shape == (3, 0)
    assert not has_full_grid(data)
    for wrong in (torch.tensor([20]), torch.tensor([-1])):
        with pytest.raises(IndexError, match="below 20, the size of arrays"):
            data.factors(wrong)


def test_the_digits(tmp_path):
    path = save(
        tmp_path / "digits.npz", GREY, np.savez_compressed, factors=DIGITS.target, factor_names=["digit"]
    )
    data = ArrayImages(path)
    assert len(data) == 1797 and data.image_shape == (1, 8, 8)
    assert np.array_equal(everything(data)[:, 0], GREY)
    assert data.factor_names == ("digit",) and data.factor_sizes == (10,)
    assert data.factor_values == (tuple("0123456789"),)
    assert np.array_equal(data.factors(np.arange(1797)).numpy()[:, 0], DIGITS.target)
    parts = split(data)
    assert [*map(len, parts)] == [1439, 179, 179]


def test_the_digits_in_a_folder(tmp_path):
    names = [f"{digit}/{number:04d}.png" for number, digit in enumerate(DIGITS.target)]
    folder = write_pictures(tmp_path / "digits", GREY, names)
    order = np.array(sorted(range(1797), key=names.__getitem__))
    shuffled = np.random.default_rng(0).permutation(1797)  # the table's order does not matter
    write_table(
        folder / "labels.csv",
        [["digit", "file", "sum"], *([NAMES[DIGITS.target[k]], names[k], GREY[k].sum()] for k in shuffled)],
    )
    (folder / ".0.png").write_bytes(b"no picture")
    (folder / "notes.txt").write_text("nor this")
    data = open_dataset("folder", folder)
    assert data.image_shape == (1, 8, 8) and np.array_equal(everything(data)[:, 0], GREY[order])
    assert data.factor_names == ("digit", "sum")
    assert data.factor_values[0] == tuple(sorted(NAMES))
    factors = data.factors(np.arange(1797)).numpy()
    assert np.array_equal(np.array(data.factor_values[0])[factors[:, 0]], NAMES[DIGITS.target[order]])
    sums = np.array([int(text) for text in data.factor_values[1]])
    assert (np.diff(sums) > 0).all()  # by size, not by letters
    assert np.array_equal(sums[factors[:, 1]], GREY.sum((1, 2))[order])


def test_jpeg_files_and_colours(tmp_path):
    smooth = np.zeros((10, 16, 24, 3), np.uint8)
    smooth[..., 0], smooth[..., 1] = np.arange(24) * 8, np.arange(16)[:, None] * 12
    names = [f"{number}.{kind}" for number, kind in enumerate(["jpg", "JPEG", "PNG", "png", "jpeg"] * 2)]
    folder = write_pictures(tmp_path / "photos", smooth, names)
    data = FolderImages(folder, resize=True, size=16)
    assert data.image_shape == (3, 16, 16)
    index = [k for k, name in enumerate(names) if name.lower().endswith("png")]
    lossless = everything(data)[sorted(index)]
    assert (lossless == lossless[:1]).all()
    assert np.abs(everything(data).astype(int) - lossless[0]).max() < 30  # what JPEG loses
    one = Image.fromarray(smooth[0]).resize((16, 16), Image.Resampling.BICUBIC)
    assert np.array_equal(lossless[0].transpose(1, 2, 0), np.asarray(one))


def test_grey_and_coloured_pictures_together_have_three_channels(tmp_path):
    folder = write_pictures(tmp_path / "mixed", [*GREY[:9]])
    assert FolderImages(folder).image_shape == (1, 8, 8)
    coloured = colours(1, 8, 8)
    write_pictures(folder, coloured, ["z.png"])
    data = FolderImages(folder)
    assert data.image_shape == (3, 8, 8)
    assert np.array_equal(everything(data)[:9], np.repeat(GREY[:9, None], 3, 1))
    assert np.array_equal(everything(data)[9].transpose(1, 2, 0), coloured[0])


def test_pictures_of_16_bits_are_scaled(tmp_path):
    levels = np.linspace(0, 65535, 256).round().astype(np.uint16).reshape(16, 16)
    folder = write_pictures(tmp_path / "deep", [levels])
    found = everything(FolderImages(folder))
    assert found.shape == (1, 1, 16, 16)
    assert np.array_equal(found[0, 0], np.round(levels / 65535 * 255).astype(np.uint8))
    write_pictures(folder, colours(1), ["z.png"])  # three channels now
    again = everything(FolderImages(folder))
    assert (again[0] == found[0]).all()


# Where row 0 and column 0 of a file are as it is looked at, by EXIF's orientation (EXIF 2.3, 4.6.4 A).
SIDES = {
    1: ("top", "left"),
    2: ("top", "right"),
    3: ("bottom", "right"),
    4: ("bottom", "left"),
    5: ("left", "top"),
    6: ("right", "top"),
    7: ("right", "bottom"),
    8: ("left", "bottom"),
}


@pytest.mark.parametrize("orientation", [*SIDES, 9])
def test_photographs_stand_upright(tmp_path, orientation):
    upright = np.zeros((16, 24), np.uint8)
    upright[:8, :8], upright[:8, 16:] = 255, 128
    first, second = SIDES.get(orientation, SIDES[1])  # 9 means nothing
    stored = upright[:: -1 if "bottom" in (first, second) else 1, :: -1 if "right" in (first, second) else 1]
    stored = stored.T if first in ("left", "right") else stored
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "a.jpg", exif=exif, quality=100)
    data = FolderImages(tmp_path, size=24, resize=True, cache=tmp_path / "cache")
    expected = np.asarray(Image.fromarray(upright).resize((24, 24), Image.Resampling.BICUBIC)).astype(int)
    np.testing.assert_allclose(everything(data)[0, 0].astype(int), expected, atol=12)
    with pytest.raises(ValueError, match="24 pixels wide and 16 high"):
        FolderImages(tmp_path, cache=tmp_path / "cache")


def test_resizing(tmp_path):
    images = colours(12, 10, 14)
    path = save(tmp_path / "own.npz", images)
    data = ArrayImages(path, size=8, resize=True)
    assert data.image_shape == (3, 8, 8)
    truth = [np.asarray(Image.fromarray(each).resize((8, 8), Image.Resampling.BICUBIC)) for each in images]
    assert np.array_equal(everything(data).transpose(0, 2, 3, 1), truth)
    other = ArrayImages(path, size=16, resize=True)
    assert other.image_shape == (3, 16, 16) and other.path != data.path
    grey = ArrayImages(save(tmp_path / "grey.npz", GREY[:12]), size=16, resize=True)
    one = np.asarray(Image.fromarray(GREY[5]).resize((16, 16), Image.Resampling.BICUBIC))
    assert np.array_equal(everything(grey)[5, 0], one)
    refused(
        ArrayImages, path, r"14 pixels wide and 10 high, but must be square.*data\.resize=true data\.size"
    )
    refused(
        ArrayImages, path, r"14 pixels wide and 10 high, but data\.size is 64.*data\.resize=true", size=64
    )
    refused(ArrayImages, save(tmp_path / "q.npz"), r"16 pixels wide and 16 high, but data\.size is 8", size=8)
    refused(ArrayImages, tmp_path / "q.npz", r"3 channel\(s\), but data\.channels is 1", channels=1)
    folder = write_pictures(tmp_path / "pictures", [*colours(2), *colours(1, 8, 8)])
    refused(FolderImages, folder, r"one size, but 0000\.png is \(16, 16\) and 0002\.png is \(8, 8\).*resize")
    assert FolderImages(folder, size=8, resize=True).image_shape == (3, 8, 8)
    with pytest.raises(ValueError, match="size must be at least 1"):
        ArrayImages(path, resize=True)
    with pytest.raises(ValueError, match="channels must be 1 or 3"):
        ArrayImages(path, channels=2)


def test_labels_with_an_underscore_are_texts(tmp_path):
    """Python reads 1_12 and 11_2 as the same number."""
    labels = ["1_12", "11_2", "2_1"]
    folder = write_pictures(tmp_path / "pictures", colours(3))
    write_table(
        folder / "labels.csv", [["file", "place"], *([f"{i:04d}.png", each] for i, each in enumerate(labels))]
    )
    assert FolderImages(folder).factor_values == (("11_2", "1_12", "2_1"),)


def test_labels_of_every_kind(tmp_path):
    texts = np.array(["b", "a", "c", "a"] * 5)
    numbers = np.array([10, 9, 100, -1] * 5)
    for given, values, codes in (
        (texts, ("a", "b", "c"), [1, 0, 2, 0]),
        (numbers, ("-1", "9", "10", "100"), [2, 1, 3, 0]),
        (numbers / 4, ("-0.25", "2.25", "2.5", "25.0"), [2, 1, 3, 0]),
        (numbers > 9, ("False", "True"), [1, 0, 1, 0]),
        (texts.astype("S1"), ("a", "b", "c"), [1, 0, 2, 0]),
    ):
        data = ArrayImages(save(tmp_path / "own.npz", factors=given))
        assert data.factor_names == ("label",) and data.factor_values == (values,)
        assert data.factors(np.arange(4)).tolist() == [[code] for code in codes]
    both = np.asfortranarray(np.stack([numbers, numbers % 3], 1))
    data = ArrayImages(save(tmp_path / "own.npz", factors=both))
    assert data.factor_names == ("factor_0", "factor_1") and data.factor_sizes == (4, 3)
    assert np.array_equal(data.factors(np.arange(4)).numpy(), [[2, 1], [1, 0], [3, 1], [0, 2]])


def test_a_full_grid_of_labels_has_an_index(tmp_path):
    grid = np.array(list(itertools.product(range(2), "xyz", range(3))), dtype="U1")
    order = np.random.default_rng(1).permutation(18)
    data = ArrayImages(save(tmp_path / "own.npz", colours(18), factors=grid[order]))
    assert has_full_grid(data) and data.factor_sizes == (2, 3, 3)
    for copy in (data, pickle.loads(pickle.dumps(data))):
        assert np.array_equal(copy.index(copy.factors(np.arange(18))).numpy(), np.arange(18))
        with pytest.raises(IndexError, match="factor_1 must be at least 0 and below 3"):
            copy.index(np.array([[0, 3, 0]]))
    twice = grid[order]
    twice[0] = twice[1]
    assert not has_full_grid(ArrayImages(save(tmp_path / "own.npz", colours(18), factors=twice)))
    more = np.concatenate([grid, grid[:1]])
    assert not has_full_grid(ArrayImages(save(tmp_path / "own.npz", colours(19), factors=more)))


def test_copies_map_the_same_file(tmp_path):
    data = ArrayImages(save(tmp_path / "digits.npz", GREY, factors=DIGITS.target))
    packed = pickle.dumps(data)
    assert len(packed) < 2000
    copy = pickle.loads(packed)
    assert np.array_equal(everything(copy), everything(data))
    assert torch.equal(copy.factors(np.arange(1797)), data.factors(np.arange(1797)))
    save(tmp_path / "digits.npz", GREY[::-1], factors=DIGITS.target)
    ArrayImages(tmp_path / "digits.npz")
    with pytest.raises(ValueError, match="was made anew, from another original"):
        pickle.loads(packed)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"pictures": colours()}, r"must hold images, but holds \['pictures'\]"),
        ({"images": colours() / 255}, r"images must be uint8, 0 to 255, but are float64 \(20, 16, 16, 3\)"),
        ({"images": colours()[..., :2]}, r"C 1 or 3, but are uint8 \(20, 16, 16, 2\)"),
        ({"images": colours()[0, 0]}, r"C 1 or 3, but are uint8 \(16, 3\)"),
        ({"images": colours()[:0]}, "must not be empty"),
        ({"images": np.asfortranarray(colours())}, "stored in C order"),
        ({"images": colours(), "factors": np.arange(19)}, r"must be of shape \(20,\).*but are \(19,\)"),
        ({"images": colours(), "factors": np.zeros((20, 0))}, "1 to 1000"),
        ({"images": colours(), "factors": np.zeros((20, 1001), bool)}, "1 to 1000"),
        ({"images": colours(), "factors": np.array([None] * 20)}, "whole numbers, numbers or texts"),
        ({"images": colours(), "factors": np.full(20, np.nan)}, "finite numbers, but has nan"),
        (
            {"images": colours(), "factors": np.zeros((20, 2)), "factor_names": ["one"]},
            r"factor_names must be texts \(2,\)",
        ),
        (
            {"images": colours(), "factors": np.zeros((20, 2)), "factor_names": ["a", "a"]},
            "must be different texts",
        ),
    ],
)
def test_arrays_that_do_not_fit(tmp_path, content, message):
    np.savez(tmp_path / "own.npz", **content)
    refused(ArrayImages, tmp_path / "own.npz", message)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([["file", "a"], ["0000.png", 1]], "no.* for 0001.png|none for 0001.png"),
        ([["file", "a"], ["0000.png", 1], ["0001.png", 1], ["2.png", 1]], "there is no 2.png"),
        ([["file", "a"], ["0000.png", 1], ["./0000.png", 1]], "0000.png has several"),
        ([["file", "a"], ["0000.png", 1], ["0001.png"]], "row 3 must have 2 columns, but has 1"),
        ([["file"], ["0000.png"], ["0001.png"]], "1 to 1000 columns of factors, but there are 0"),
        ([["file", "a", "a"], ["0000.png", 1, 1], ["0001.png", 1, 1]], "must be different texts"),
        ([], "cannot be read as a table"),
    ],
)
def test_tables_that_do_not_fit(tmp_path, rows, message):
    folder = write_pictures(tmp_path / "own", colours(2))
    write_table(folder / "labels.csv", rows)
    with pytest.raises(ValueError, match=f"labels.csv.*({message})"):
        FolderImages(folder)


def test_things_that_are_missing(tmp_path):
    for kind, what in ((ArrayImages, "npz file"), (FolderImages, "PNG or JPEG")):
        refused(kind, tmp_path / "nowhere", f"there is no .*root must be .*{what}", FileNotFoundError)
    (tmp_path / "empty").mkdir()
    refused(FolderImages, tmp_path / "empty", "no PNG or JPEG files")
    for name in ("arrays", "folder"):
        with pytest.raises(ValueError, match=rf"root must be given for {name}: data\.root=PATH"):
            open_dataset(name)
    with pytest.raises(ValueError, match="did you mean 'folder'"):
        open_dataset("folders", tmp_path)
    with pytest.raises(ValueError, match="resize is for arrays and folder only"):
        open_dataset("shapes3d", tmp_path, resize=True)


def test_xyobject(tmp_path):
    """Squares of the PyPI package disent 0.8.0 (MIT), written by benchmarks/make_xyobject.py --small."""
    data = ArrayImages(pathlib.Path(__file__).parent / "xyobject.npz", cache=tmp_path)
    assert data.factor_names == ("x", "y", "scale", "color") and data.factor_sizes == (12, 12, 2, 12)
    assert data.image_shape == (3, 16, 16) and has_full_grid(data)
    every = np.arange(3456)
    assert np.array_equal(data.index(data.factors(every)).numpy(), every)  # written in mixed radix
    rainbow = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 1, 1], [0, 0, 1], [1, 0, 1]])
    shades = np.concatenate([rainbow * 127, rainbow * 255])
    images = everything(data)
    for number in np.random.default_rng(0).permutation(3456)[:200]:
        x, y, scale, colour = np.unravel_index(number, data.factor_sizes)
        truth = np.zeros((3, 16, 16), np.uint8)
        truth[:, y + 1 - scale : y + 4 + scale, x + 1 - scale : x + 4 + scale] = shades[colour][:, None, None]
        assert np.array_equal(images[number], truth)


def test_reopen_gives_the_set_again(tmp_path):
    path = save(tmp_path / "own.npz")
    for data in (
        ArrayImages(path, cache=tmp_path / "cache"),
        FolderImages(write_pictures(tmp_path / "own", colours(11))),
    ):
        keys = data.reopen()
        again = open_dataset(keys.pop("name"), **keys)
        assert type(again) is type(data) and again.path == data.path
        assert np.array_equal(everything(again), everything(data))
    assert re.fullmatch(r"own\.npz-[0-9a-f]{8}\.images\.npy", next((tmp_path / "cache").iterdir()).name)
