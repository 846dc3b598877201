"""Converted images know their original: another one under the old name gives other images."""

import os
import pickle
import shutil

import numpy as np
import pytest
import small_files as small
import test_own_images as own
from small_files import SmallIsaac3D, SmallMPI3DComplex, SmallShapes3D

from fqvae.data import ArrayImages, FolderImages
from fqvae.data.conversion import convert, read_note

EVERY = np.arange(24)


def write(kind, root, seed):
    """An original of this kind; gives its images as (count, channels, height, width), or None if resized."""
    if kind is ArrayImages:
        images = own.colours(24, seed=seed)
        own.save(root, images)
    elif kind is FolderImages:
        images = own.colours(24, seed=seed)
        own.write_pictures(root, images)
    elif kind is SmallShapes3D:
        images = small.write_shapes3d(root, small.pictures(48, seed=seed))
    elif kind is SmallMPI3DComplex:
        images = small.write_mpi3d(root, small.pictures(48, seed=seed))
    else:
        files, _ = small.isaac_files(small.pictures(24, 128, seed=seed))
        (small.write_zip if root.suffix == ".zip" else small.write_folder)(root, files)
        return None
    return images[:24].transpose(0, 3, 1, 2)


KINDS = {
    "shapes3d": (SmallShapes3D, "3dshapes.h5"),
    "mpi3d": (SmallMPI3DComplex, "real3d_complicated_shapes_ordered.npz"),
    "isaac zip": (SmallIsaac3D, "Isaac3D_down128.zip"),
    "isaac folder": (SmallIsaac3D, "unpacked"),
    "arrays": (ArrayImages, "own.npz"),
    "folder": (FolderImages, "own"),
}


@pytest.fixture(params=KINDS)
def original(request, tmp_path):
    """The class, and where its original is."""
    kind, name = KINDS[request.param]
    (tmp_path / "here").mkdir()
    return kind, tmp_path / "here" / name


def pixels(dataset):
    return dataset.images(EVERY).numpy()


@pytest.mark.parametrize("cached", [False, True])
def test_another_original_under_the_old_name(original, tmp_path, capsys, cached):
    kind, root = original
    cache = {"cache": tmp_path / "cache"} if cached else {}
    first = write(kind, root, 0)
    before = pixels(kind(root, **cache))
    capsys.readouterr()
    assert np.array_equal(pixels(kind(root, **cache)), before)
    assert capsys.readouterr().err == ""  # nothing was converted
    if root.is_dir():
        shutil.rmtree(root / "images" if kind is SmallIsaac3D else root)
    second = write(kind, root, 1)
    opened = kind(root, **cache)
    assert "was made from another original; it is made anew" in capsys.readouterr().err
    assert not np.array_equal(pixels(opened), before)
    if first is not None:
        assert np.array_equal(before, first) and np.array_equal(pixels(opened), second)
    assert not list(tmp_path.rglob("*.part"))


def test_the_time_of_change_alone_is_enough(tmp_path):
    """Another middle, of the same size, with the same ends."""
    path = own.save(tmp_path / "own.npz", own.colours(400))
    ArrayImages(path)
    data = bytearray(path.read_bytes())
    assert len(data) > 3 * (1 << 16)
    images = own.colours(400)
    images[200] ^= 255
    own.save(path, images)
    assert path.stat().st_size == len(data)
    assert np.array_equal(
        ArrayImages(path).images(np.array([200])).numpy()[0].transpose(1, 2, 0), images[200]
    )


def test_the_ends_are_enough_where_the_time_is_kept(tmp_path):
    path = own.save(tmp_path / "own.npz")
    status = path.stat()
    ArrayImages(path)
    images = own.colours(seed=1)
    own.save(path, images)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == status.st_size
    assert np.array_equal(own.everything(ArrayImages(path)).transpose(0, 2, 3, 1), images)


def test_two_originals_of_one_name_in_one_cache(original, tmp_path, capsys):
    kind, root = original
    other = tmp_path / "there" / root.name
    other.parent.mkdir()
    write(kind, root, 0)
    write(kind, other, 1)
    opened = [kind(each, cache=tmp_path / "cache") for each in (root, other)]
    capsys.readouterr()
    again = [kind(each, cache=tmp_path / "cache") for each in (root, other)]
    assert capsys.readouterr().err == ""
    for a, b in zip(opened, again, strict=True):
        assert np.array_equal(pixels(a), pixels(b)) and np.array_equal(
            pixels(pickle.loads(pickle.dumps(a))), pixels(a)
        )
    assert not np.array_equal(pixels(opened[0]), pixels(opened[1]))
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_the_original_may_go(original, tmp_path, capsys):
    """With a cache folder, the folder that it lay in as well."""
    kind, path = original
    write(kind, path, 0)
    # The folder that a published file lies in serves as root too.
    roots = [path, path.parent] if kind.__name__.startswith("Small") and path.suffix else [path]
    before = [pixels(kind(root, cache=tmp_path / "cache")) for root in roots]
    shutil.rmtree(path.parent)
    capsys.readouterr()
    for root, images in zip(roots, before, strict=True):
        assert np.array_equal(pixels(kind(root, cache=tmp_path / "cache")), images)
        with pytest.raises(FileNotFoundError, match=root.name):
            kind(root)
    assert capsys.readouterr().err == ""


def test_labels_stay_when_the_original_goes(tmp_path):
    path = own.save(tmp_path / "own.npz", factors=np.array(list("ab") * 10), factor_names=["letter"])
    ArrayImages(path)
    path.unlink()
    data = ArrayImages(path)
    assert data.factor_names == ("letter",) and data.factor_values == (("a", "b"),)
    assert data.factors(np.arange(3)).tolist() == [[0], [1], [0]]


def test_new_labels_are_seen(tmp_path):
    folder = own.write_pictures(tmp_path / "own", own.colours(3))
    assert FolderImages(folder).factor_names == ()
    rows = [["file", "a"], *([f"{k:04d}.png", k] for k in range(3))]
    own.write_table(folder / "labels.csv", rows)
    assert FolderImages(folder).factor_names == ("a",)
    assert np.array_equal(own.everything(FolderImages(folder)).transpose(0, 2, 3, 1), own.colours(3))


def test_an_array_without_a_note_is_made_anew_while_the_original_is_there(tmp_path, capsys):
    """As earlier versions wrote them: nobody knows from what."""
    path = tmp_path / "3dshapes.h5"
    images = small.write_shapes3d(path)
    np.save(tmp_path / "3dshapes.images.npy", np.zeros((48, 3, 64, 64), np.uint8))
    data = SmallShapes3D(path)
    assert np.array_equal(data.images(np.arange(48)).permute(0, 2, 3, 1).numpy(), images)
    assert "is made anew" in capsys.readouterr().err
    path.unlink()
    np.save(tmp_path / "3dshapes.images.npy", np.full((48, 3, 64, 64), 7, np.uint8))
    assert (SmallShapes3D(path).images(EVERY) == 7).all()


def test_what_is_no_converted_file_is_not_written_over(tmp_path):
    path = tmp_path / "3dshapes.h5"
    small.write_shapes3d(path)
    precious = tmp_path / "3dshapes.images.npy"
    np.save(precious, np.arange(10))
    kept = precious.read_bytes()
    with pytest.raises(ValueError, match=r"3dshapes\.images\.npy must hold uint8 .* but holds int64 \(10,\)"):
        SmallShapes3D(path)
    assert precious.read_bytes() == kept


def test_a_note_stands_behind_an_ordinary_array(tmp_path):
    target = tmp_path / "set.images.npy"
    images = own.colours(4).transpose(0, 3, 1, 2).copy()
    note = {"source": {"file": "a"}, "labels": [1, 2]}
    convert(target, images.shape, iter([images]), note)
    assert np.array_equal(np.load(target), images) and np.array_equal(np.load(target, mmap_mode="r"), images)
    assert read_note(target) == note
    whole = target.read_bytes()
    for damaged in (
        whole[:-1],
        whole[:-9] + b"\xff" * 9,
        whole[:-40] + b"{" * 24 + whole[-16:],
        whole[:10],
        b"",
    ):
        target.write_bytes(damaged)
        assert read_note(target) is None
    assert read_note(tmp_path / "missing") is None


def test_what_a_killed_conversion_left_goes_with_the_next(tmp_path):
    """Also where it was about to replace an array of another original."""
    path = own.save(tmp_path / "own.npz")
    ArrayImages(path)
    images = own.colours(seed=1)
    own.save(path, images)
    (tmp_path / "own.npz.images.npy.part").write_bytes(b"half of it")
    assert np.array_equal(own.everything(ArrayImages(path)).transpose(0, 2, 3, 1), images)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["own.npz", "own.npz.images.npy"]


def test_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    path = own.save(tmp_path / "own.npz")
    data = ArrayImages("~/own.npz", cache="~/cache")
    assert data.root == path and data.path.parent == tmp_path / "cache"
    assert not (tmp_path / "~").exists()
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        SmallShapes3D("~/nowhere")
