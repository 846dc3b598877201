"""The three readers on small files of the published layouts, and on files that are not such."""

import copy
import math
import pickle
import re
import sys

import h5py
import numpy as np
import pytest
import small_files as small
import torch
from small_files import SmallIsaac3D, SmallMPI3DComplex, SmallShapes3D

from fqvae.data import Isaac3D, MPI3DComplex, Shapes3D
from fqvae.packages import missing


def check_images(data, expected):
    """expected: (count, 64, 64, 3)."""
    index = np.random.default_rng(0).integers(len(data), size=200)
    images = data.images(index)
    assert images.dtype == torch.uint8 and images.shape == (200, *data.image_shape) and images.is_contiguous()
    assert np.array_equal(images.permute(0, 2, 3, 1).numpy(), expected[index])
    assert torch.equal(data.images(torch.from_numpy(index)), images)
    factors = np.stack(np.unravel_index(index, data.factor_sizes), 1)
    assert np.array_equal(data.factors(index).numpy(), factors)


def refused(kind, root, *parts):
    """The reader refuses the file, says so with these words, and leaves nothing behind."""
    before = {path: path.read_bytes() for path in root.parent.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match=".*".join(map(re.escape, (root.name, *parts)))):
        kind(root)
    assert {path: path.read_bytes() for path in root.parent.rglob("*") if path.is_file()} == before


def write(kind, path):
    """A sound file for this reader."""
    if kind is SmallShapes3D:
        small.write_shapes3d(path)
    elif kind is SmallMPI3DComplex:
        small.write_mpi3d(path)
    else:
        small.write_zip(path, small.isaac_files()[0])


@pytest.fixture
def h5(tmp_path):
    return tmp_path / "3dshapes.h5"


@pytest.fixture
def npz(tmp_path):
    return tmp_path / "real3d_complicated_shapes_ordered.npz"


@pytest.fixture
def isaac(tmp_path):
    return tmp_path / "Isaac3D_down128.zip"


@pytest.mark.parametrize("options", [{}, {"compression": "gzip"}])
@pytest.mark.parametrize("batch", [7, 1024])
def test_shapes3d(h5, monkeypatch, options, batch):
    monkeypatch.setattr("fqvae.data.shapes3d.BATCH", batch)
    images = small.write_shapes3d(h5, **options)
    check_images(SmallShapes3D(h5), images)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("batch", [7, 1024])
def test_mpi3d(npz, monkeypatch, save, batch):
    monkeypatch.setattr("fqvae.data.archive.BATCH_BYTES", batch * 64 * 64 * 3)
    images = small.write_mpi3d(npz, save=save)
    check_images(SmallMPI3DComplex(npz), images)


def bicubic_weights():
    """(64, 128): Keys' cubic, a = -1/2, stretched by two, and normalised where the image ends."""
    distance = np.abs((np.arange(128) + 0.5) - 2 * (np.arange(64)[:, None] + 0.5)) / 2
    near, far = distance < 1, (distance >= 1) & (distance < 2)
    weights = np.where(near, 1.5 * distance**3 - 2.5 * distance**2 + 1, 0)
    weights += np.where(far, -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2, 0)
    return weights / weights.sum(1, keepdims=True)


@pytest.mark.parametrize("layout", ["zip", "zip with a folder", "folder", "folder in a folder"])
def test_isaac3d(tmp_path, isaac, monkeypatch, layout):
    monkeypatch.setattr("fqvae.data.isaac3d.BATCH", 7)
    # Away from black and white, where Pillow cuts off what overshoots between its two passes.
    images = small.pictures(24, 128) // 2 + 60
    files, _ = small.isaac_files(images)
    root = isaac
    if layout.startswith("zip"):
        extra = {"images/readme.txt": b"", "__MACOSX/images/._000000.png": b""}
        small.write_zip(isaac, {**files, **extra}, "Isaac3D/" if "folder" in layout else "")
    else:
        root = tmp_path
        small.write_folder(tmp_path / ("Isaac3D_down128" if "in" in layout else "."), files)
    data = SmallIsaac3D(root)
    assert data.path == tmp_path / "Isaac3D_down128.images.npy"
    weights = bicubic_weights()
    truth = np.einsum("yh,xw,nhwc->nyxc", weights, weights, images.astype(float), optimize=True)
    found = data.images(np.arange(len(data))).permute(0, 2, 3, 1).numpy()
    assert found.shape == truth.shape
    # One rounding to bytes along the rows, which overshooting weights stretch to 0.6, and one at the end.
    assert np.abs(found - truth).max() < 1.15
    check_images(data, found)


def test_isaac3d_takes_other_kinds_of_png(isaac):
    """Grey with transparency, say: only colours count."""
    files, images = small.isaac_files()
    images[3] = images[3, :, :, :1]
    files["images/000003.png"] = small.png(np.concatenate([images[3, :, :, :1], images[2, :, :, :1]], 2))
    small.write_zip(isaac, files)
    plain = isaac.with_name("plain.zip")
    small.write_zip(plain, small.isaac_files(images)[0])
    every = np.arange(24)
    assert torch.equal(SmallIsaac3D(isaac).images(every), SmallIsaac3D(plain).images(every))


def test_the_set_stays_on_disk_and_the_original_is_not_needed_again(h5, tmp_path):
    images = small.write_shapes3d(h5)
    first = SmallShapes3D(tmp_path)
    base = first._images
    while not isinstance(base, np.memmap):
        base = base.base
    assert base.mode == "r" and str(base.filename) == str(tmp_path / "3dshapes.images.npy")
    written = first.path.stat()
    h5.unlink()
    for root in (tmp_path, h5):
        check_images(SmallShapes3D(root), images)
    assert first.path.stat().st_mtime_ns == written.st_mtime_ns


def test_copies_map_the_same_file(h5):
    images = small.write_shapes3d(h5)
    data = SmallShapes3D(h5)
    packed = pickle.dumps(data)
    assert len(packed) < 2000
    check_images(pickle.loads(packed), images)
    check_images(copy.deepcopy(data), images)


def test_a_cache_folder(h5, tmp_path):
    images = small.write_shapes3d(h5)
    cache = tmp_path / "new" / "cache"
    check_images(SmallShapes3D(h5, cache=cache), images)
    (made,) = cache.iterdir()
    assert re.fullmatch(r"shapes3d-[0-9a-f]{8}\.images\.npy", made.name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["3dshapes.h5", "new"]


def test_full_size_is_expected(h5, npz, isaac):
    small.write_shapes3d(h5)
    refused(Shapes3D, h5, "must be uint8 (480000, 64, 64, 3), but are uint8 (48, 64, 64, 3)")
    small.write_mpi3d(npz)
    refused(MPI3DComplex, npz, "must be uint8 (460800, 64, 64, 3), but are uint8 (48, 64, 64, 3)")
    small.write_zip(isaac, small.isaac_files()[0])
    refused(Isaac3D, isaac, "must be 737280 images, but 737256 are missing, images/000024.png the first")


def test_other_shapes_and_dtypes(h5, npz):
    images = small.pictures(48)
    small.write_shapes3d(h5, images.astype(np.float32))
    refused(SmallShapes3D, h5, "but are float32 (48, 64, 64, 3)")
    small.write_shapes3d(h5, images.transpose(0, 3, 1, 2))
    refused(SmallShapes3D, h5, "but are uint8 (48, 3, 64, 64)")
    small.write_mpi3d(npz, images.astype(np.int64))
    refused(SmallMPI3DComplex, npz, "but are int64 (48, 64, 64, 3)")
    small.write_mpi3d(npz, np.asfortranarray(images))
    refused(SmallMPI3DComplex, npz, "C order")


def test_things_that_are_missing(h5, npz, isaac, tmp_path):
    with h5py.File(h5, "w") as file:
        file["pictures"] = [1]
        file.create_group("images")
    refused(SmallShapes3D, h5, "must hold images and labels, but holds ['images', 'pictures']")
    np.savez(npz, pictures=[1])
    refused(SmallMPI3DComplex, npz, "must hold images, but holds ['pictures']")

    files, _ = small.isaac_files()
    small.write_zip(isaac, {name: data for name, data in files.items() if name != "labels.npy"})
    refused(SmallIsaac3D, isaac, "no labels.npy")
    small.write_zip(isaac, {"labels.npy": files["labels.npy"]})
    refused(SmallIsaac3D, isaac, "no images/NNNNNN.png")
    small.write_zip(isaac, {**files, "images/000031.png": files["images/000001.png"]})
    refused(SmallIsaac3D, isaac, "must be 24 images, but there is number 31")
    folder = tmp_path / "unpacked"
    (folder / "images").mkdir(parents=True)
    refused(SmallIsaac3D, folder, "no images/NNNNNN.png")
    del files["images/000007.png"], files["images/000009.png"]
    small.write_folder(folder, files)
    refused(SmallIsaac3D, folder, "2 are missing, images/000007.png the first")
    (tmp_path / "empty").mkdir()
    for kind in (SmallShapes3D, SmallMPI3DComplex, SmallIsaac3D):
        with pytest.raises(FileNotFoundError, match=kind.original):
            kind(tmp_path / "empty")
        with pytest.raises(FileNotFoundError, match="nowhere"):
            kind(tmp_path / "nowhere")
    assert not any((tmp_path / "empty").iterdir())


@pytest.mark.parametrize(
    ("factor", "change"),
    [
        ("scale", "swap"),
        ("orientation", "equal"),
        ("floor_hue", "nan"),
        ("floor_hue", "one"),
        ("orientation", "one"),
    ],
)
def test_labels_in_another_order(h5, factor, change):
    values = small.labels(SmallShapes3D)
    column = values[:, SmallShapes3D.factor_names.index(factor)]
    if change == "swap":
        column[[0, 4]] = column[[4, 0]]  # the scales of the first and second block
    elif change == "equal":
        column[:] = 1.0
    elif change == "nan":
        column[20] = math.nan
    else:
        column[47] = column[0]
    small.write_shapes3d(h5, values=values)
    refused(SmallShapes3D, h5, factor)


def test_labels_may_be_blurred_in_any_order_of_values_and_of_any_type(h5, isaac):
    values = small.labels(SmallShapes3D)
    values += 1e-4 * np.random.default_rng(0).standard_normal(values.shape)
    values[:, 3] *= -1
    images = small.write_shapes3d(h5, values=values.astype(np.float32))
    check_images(SmallShapes3D(h5), images)
    files, _ = small.isaac_files()
    grid = np.stack(np.unravel_index(np.arange(24), SmallIsaac3D.factor_sizes), 1)
    small.write_zip(isaac, {**files, "labels.npy": small.npy(grid)})
    assert len(SmallIsaac3D(isaac)) == 24


def test_labels_of_another_shape(h5, isaac):
    small.write_shapes3d(h5, values=small.labels(SmallShapes3D)[:, :5])
    refused(SmallShapes3D, h5, "labels must be numbers (48, 6), but are float64 (48, 5)")
    files, _ = small.isaac_files()
    small.write_zip(isaac, {**files, "labels.npy": small.npy(np.zeros((24, 9), "U3"))})
    refused(SmallIsaac3D, isaac, "labels must be numbers (24, 9), but are <U3")
    small.write_zip(isaac, {**files, "labels.npy": b"\x93NUMPY"})
    refused(SmallIsaac3D, isaac, "labels.npy has no valid header")


@pytest.mark.parametrize(
    ("kind", "name"), [(SmallShapes3D, "h5"), (SmallMPI3DComplex, "npz"), (SmallIsaac3D, "isaac")]
)
def test_files_cut_short_and_files_of_another_kind(kind, name, request):
    path = request.getfixturevalue(name)
    write(kind, path)
    whole = path.read_bytes()
    for data in (whole[: len(whole) // 2], b"", b"<html>not found</html>"):
        path.write_bytes(data)
        refused(kind, path, "cut short")


def test_damage_inside(h5, npz, isaac):
    """Found while the images are read, after the file's structure has been found sound."""
    images = small.write_shapes3d(h5, compression="gzip")
    data = bytearray(h5.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 2000] = bytes(2000)
    h5.write_bytes(data)
    refused(SmallShapes3D, h5, "damaged: /images")

    for save in (np.savez, np.savez_compressed):
        small.write_mpi3d(npz, images, save)
        data = bytearray(npz.read_bytes())
        data[len(data) // 2] ^= 64
        npz.write_bytes(data)
        refused(SmallMPI3DComplex, npz, "damaged: images.npy")

    files, pictures = small.isaac_files()
    for bad in (files["images/000020.png"][:-300], b"", b"\x89PNG nonsense", b"\xff\xd8 no png"):
        small.write_zip(isaac, {**files, "images/000020.png": bad})
        refused(SmallIsaac3D, isaac, "images/000020.png cannot be read")
    small.write_zip(isaac, {**files, "images/000020.png": small.png(pictures[20, :64, :100])})
    refused(SmallIsaac3D, isaac, "000020.png must be (128, 128) pixels", "but is (100, 64)")


@pytest.mark.parametrize(("given", "message"), [(40, "40 of 48 images"), (50, "more in images.npy than 48")])
def test_an_npz_whose_header_lies(npz, given, message):
    honest = small.npy(small.pictures(given))
    lying = honest.replace(f"({given}, 64".encode(), b"(48, 64")
    assert lying != honest
    small.write_zip(npz, {"images.npy": lying})
    refused(SmallMPI3DComplex, npz, message)
    small.write_zip(npz, {"images.npy": honest[:20]})
    refused(SmallMPI3DComplex, npz, "no valid header")


class NotInstalled:
    """A finder that finds no such package, and keeps others from finding it."""

    def __init__(self, package):
        self.package = package

    def find_spec(self, name, path=None, target=None):
        if name == self.package:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


@pytest.mark.parametrize(
    ("package", "kind", "name"),
    [("h5py", SmallShapes3D, "h5"), ("PIL", SmallIsaac3D, "isaac"), ("tqdm", SmallMPI3DComplex, "npz")],
)
def test_packages_that_are_not_installed(request, monkeypatch, package, kind, name):
    path = request.getfixturevalue(name)
    write(kind, path)
    for module in list(sys.modules):
        if module.partition(".")[0] == package:
            monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(sys, "meta_path", [NotInstalled(package), *sys.meta_path])
    with pytest.raises(ModuleNotFoundError, match=re.escape(missing(package))):
        kind(path)
    assert [each.name for each in path.parent.iterdir()] == [path.name]
