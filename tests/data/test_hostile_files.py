"""Odd, damaged and hostile files: each is refused in one line that names the file, and in little memory."""

import contextlib
import io
import pathlib
import re
import resource
import struct
import warnings
import zipfile
import zlib

import h5py
import numpy as np
import pytest
import small_files as small
import test_own_images as own
from PIL import Image
from small_files import SmallIsaac3D, SmallMPI3DComplex, SmallShapes3D

from fqvae.data import ArrayImages, FolderImages


@contextlib.contextmanager
def little_memory():
    """400 MiB more than the process has now, at most."""
    (line,) = re.findall(r"VmSize:\s*(\d+) kB", pathlib.Path("/proc/self/status").read_text())
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (int(line) * 1024 + (400 << 20), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def refused(kind, root, *words):
    """The reader refuses it in one line that names it, and leaves nothing behind."""
    before = sorted(root.parent.rglob("*"))
    with little_memory(), pytest.raises(ValueError, match=".*".join((root.name, *words))) as raised:
        kind(root)
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 1000
    assert sorted(root.parent.rglob("*")) == before


def npz_bytes(**arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def with_flag(data, flag=None, method=None):
    """A zip file whose members claim to be encrypted (flag 1), or packed by another method."""
    data = bytearray(data)
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = data.find(mark)
        while at >= 0:
            if flag is not None:
                data[at + place] |= flag
            if method is not None:
                struct.pack_into("<H", data, at + place + 2, method)
            at = data.find(mark, at + 4)
    return bytes(data)


ODD = {
    "encrypted": ({"flag": 1}, "is encrypted"),
    "an unknown method": ({"method": 98}, "compression method"),
    "compressed patches": ({"flag": 32}, "patched"),
}


@pytest.mark.parametrize("odd", ODD)
def test_odd_zip_files(tmp_path, odd):
    change, words = ODD[odd]
    own_file = tmp_path / "own.npz"
    own_file.write_bytes(with_flag(npz_bytes(images=own.colours()), **change))
    refused(ArrayImages, own_file, words)
    mpi3d = tmp_path / "real3d_complicated_shapes_ordered.npz"
    mpi3d.write_bytes(with_flag(npz_bytes(images=small.pictures(48)), **change))
    refused(SmallMPI3DComplex, mpi3d, words)
    isaac = tmp_path / "Isaac3D_down128.zip"
    small.write_zip(isaac, small.isaac_files()[0])
    isaac.write_bytes(with_flag(isaac.read_bytes(), **change))
    refused(SmallIsaac3D, isaac, "labels.npy", words)


def test_one_odd_picture_in_a_zip_file(tmp_path):
    """The labels are sound: it is met in a thread, in the midst of the conversion."""
    isaac = tmp_path / "Isaac3D_down128.zip"
    files, _ = small.isaac_files()
    small.write_zip(isaac, files)
    data = bytearray(isaac.read_bytes())
    at = data.find(b"PK\x01\x02")
    data[at + 8] |= 1  # the first in the directory is the first picture
    data[data.find(b"PK\x03\x04") + 6] |= 1
    isaac.write_bytes(bytes(data))
    refused(SmallIsaac3D, isaac, "000000.png", "is encrypted")


def huge_png(width, height):
    """All of one colour; the header is honest."""

    def chunk(kind, content):
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    packer = zlib.compressobj(1)
    rows = b"".join(packer.compress(bytes(width * 3 + 1)) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_pictures_that_are_far_too_large(tmp_path):
    """14,000 x 14,000 pixels are 588 MB when they are decoded."""
    files, _ = small.isaac_files()
    for number, size in enumerate((14_000, 9_000)):  # beyond Pillow's limit, and below it
        data = huge_png(size, size)
        isaac = tmp_path / f"{number}.zip"
        small.write_zip(isaac, {**files, "images/000005.png": data})
        refused(SmallIsaac3D, isaac, "000005.png", "pixels")
        folder = own.write_pictures(tmp_path / f"own{number}", own.colours(3))
        (folder / "big.png").write_bytes(data)
        refused(FolderImages, folder, "big.png", "pixels")


def npy_header(shape, descr="|u1"):
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": descr, "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def test_labels_that_are_far_too_large(tmp_path):
    """600 MB, which a zip file packs into next to nothing."""
    files, _ = small.isaac_files()
    header = npy_header((75_000_000,), "<f8")
    folder = tmp_path / "unpacked"
    small.write_folder(folder, files)
    with open(folder / "labels.npy", "wb") as file:
        file.write(header)
        file.truncate(600_000_128)
    refused(SmallIsaac3D, folder, r"labels must be numbers \(24, 9\), but are float64 \(75000000,\)")
    packed = tmp_path / "packed.zip"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, data in files.items():
            if name != "labels.npy":
                archive.writestr(name, data)
        with archive.open("labels.npy", "w") as stream:
            stream.write(header)
            for _ in range(600):
                stream.write(bytes(1_000_000))
    assert packed.stat().st_size < 6_000_000
    refused(SmallIsaac3D, packed, r"labels must be numbers \(24, 9\), but are float64 \(75000000,\)")
    h5 = tmp_path / "3dshapes.h5"
    small.write_shapes3d(h5)
    with h5py.File(h5, "r+") as file:
        del file["labels"]
        file.create_dataset("labels", (75_000_000, 6), "f8", chunks=(1000, 6))
    refused(SmallShapes3D, h5, r"labels must be numbers \(48, 6\), but are float64 \(75000000, 6\)")


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"images": npy_header((10**12, 8, 8))}, "cut short: images are uint8"),
        ({"images": npy_header((2**70, 8, 8))}, "cut short"),
        ({"images": npy_header((-4, 8, 8))}, "no valid header"),
        ({"images": npy_header((True, 8, 8))}, "no valid header"),
        ({"images": npy_header((10, 2**40, 2**40))}, "cut short"),
        ({"images": b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1) + b"{" * 100}, "no valid header"),
        ({"images": b"\x93NUMPY\x01\x00" + struct.pack("<H", 9000) + b"(" * 9000}, "no valid header"),
        ({"images": b"\x93NUMPY\x09\x00" + bytes(100)}, "no valid header"),
        ({"images": b"__import__('os').system('false')"}, "no valid header"),
        ({"images": small.npy(own.colours(5)) + b"more"}, "there is more in images.npy than 5"),
        (
            {"images": small.npy(own.colours(5)), "factors": npy_header((5, 900), "<U900000")},
            "factors.npy .*(has 0 of|cannot be read)",
        ),
        (
            {"images": small.npy(own.colours(5)), "factors": npy_header((5,), "|V80")},
            "numbers or texts, but are",
        ),
    ],
)
def test_headers_that_lie(tmp_path, members, words):
    path = tmp_path / "own.npz"
    small.write_zip(path, {f"{name}.npy": data for name, data in members.items()})
    refused(ArrayImages, path, words)


def test_links_in_hdf5_files(tmp_path):
    h5, other = tmp_path / "3dshapes.h5", tmp_path / "other.h5"
    images = small.write_shapes3d(other)
    values = small.labels(SmallShapes3D)
    raw = tmp_path / "raw"
    raw.write_bytes(images.tobytes())

    def external(file):
        file["images"] = h5py.ExternalLink(str(other), "/images")

    def itself(file):
        file["images"] = h5py.SoftLink("/images")

    def elsewhere(file):
        file["copy"] = images
        file["images"] = h5py.SoftLink("/copy")

    def stored_elsewhere(file):
        file.create_dataset("images", images.shape, "u1", external=[(str(raw), 0, images.nbytes)])

    def virtual(file):
        layout = h5py.VirtualLayout(images.shape, "u1")
        layout[:] = h5py.VirtualSource(str(other), "images", images.shape)
        file.create_virtual_dataset("images", layout)

    def the_file(file):
        file["images"] = file["/"]

    for make, words in (
        (external, "images must lie in the file itself, but is a link to another place"),
        (itself, "images must lie in the file itself, but is a link"),
        (elsewhere, "images must lie in the file itself, but is a link"),
        (stored_elsewhere, "images must lie in the file itself, but its data lie in other files"),
        (virtual, "images must lie in the file itself, but its data lie in other files"),
        (the_file, "must hold images and labels"),
    ):
        with h5py.File(h5, "w") as file:
            file["labels"] = values
            make(file)
        refused(SmallShapes3D, h5, words)


def test_labels_of_other_types_in_hdf5_files(tmp_path):
    h5 = tmp_path / "3dshapes.h5"
    for values in (
        np.array([[b"a"] * 6] * 48, dtype=h5py.string_dtype()),
        np.zeros((48, 6), [("a", "f4"), ("b", "i4")]),
        np.zeros((48, 6), bool),
    ):
        with h5py.File(h5, "w") as file:
            file["images"] = small.pictures(48)
            file["labels"] = values
        refused(SmallShapes3D, h5, r"labels must be numbers \(48, 6\), but are")


def sound_files(folder):
    """For every reader a small file of its own."""
    h5 = folder / "3dshapes.h5"
    small.write_shapes3d(h5, compression="gzip")
    mpi3d = folder / "real3d_complicated_shapes_ordered.npz"
    small.write_mpi3d(mpi3d, save=np.savez_compressed)
    isaac = folder / "Isaac3D_down128.zip"
    small.write_zip(isaac, small.isaac_files()[0])
    path = folder / "own.npz"
    own.save(path, own.colours(20), np.savez_compressed, factors=np.arange(20), factor_names=["a"])
    pictures = own.write_pictures(folder / "pictures", own.colours(2))
    return [
        (SmallShapes3D, h5),
        (SmallMPI3DComplex, mpi3d),
        (SmallIsaac3D, isaac),
        (ArrayImages, path),
        (FolderImages, pictures / "0001.png"),
    ]


@pytest.mark.parametrize("reader", range(5))
def test_random_damage(tmp_path, reader):
    """Cut short, overwritten, or with other bytes here and there: an image set, or an error of one line."""
    generator = np.random.default_rng(reader)
    kind, path = sound_files(tmp_path)[reader]
    root = path.parent if kind is FolderImages else path
    whole = path.read_bytes()
    refusals = 0
    for number in range(40):
        data = bytearray(whole)
        if number % 4 == 0:
            del data[generator.integers(len(whole)) :]
        else:
            # Near the ends, where the structure is, more often than in the midst.
            near = int(generator.choice([64, 400, 4000, len(whole)]))
            for place in generator.integers(min(near, len(whole)), size=number % 4 * 2):
                place = place if generator.random() < 0.5 else len(whole) - 1 - place
                data[place] = generator.integers(256)
        path.write_bytes(bytes(data))
        failed = None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                opened = kind(root, cache=tmp_path / "cache" / str(number))
            opened.images(np.arange(len(opened)))
        except ValueError as error:
            failed = str(error)
        if failed is not None:
            refusals += 1
            assert "\n" not in failed and path.name in failed
            assert not list((tmp_path / "cache").glob(f"{number}/*"))
    assert refusals > 10


@pytest.mark.parametrize("reader", range(5))
def test_nonsense(tmp_path, reader):
    kind, path = sound_files(tmp_path)[reader]
    root = path.parent if kind is FolderImages else path
    generator = np.random.default_rng(reader)
    for size in (0, 1, 7, 100, 5000):
        path.write_bytes(generator.bytes(size))
        refused(kind, root)


def test_a_picture_that_is_another_kind_than_its_name(tmp_path):
    folder = own.write_pictures(tmp_path / "own", own.colours(2))
    Image.fromarray(own.colours(1)[0]).save(folder / "0001.png", "jpeg")
    assert len(FolderImages(folder)) == 2  # what it holds counts
