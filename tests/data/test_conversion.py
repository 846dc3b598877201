"""A conversion that ends early, in whatever way, is never taken for a finished one, and destroys nothing."""

import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import small_files as small
from small_files import SmallShapes3D

from fqvae.data.conversion import convert, load

SHAPE = (40, 3, 64, 64)


def planes():
    return np.ascontiguousarray(small.pictures(40).transpose(0, 3, 1, 2))


def batches(images, size=8):
    for start in range(0, len(images), size):
        yield images[start : start + size]


@pytest.fixture
def target(tmp_path):
    return tmp_path / "set.images.npy"


def names(target):
    return sorted(path.name for path in target.parent.iterdir())


def test_a_whole_conversion(target, capsys):
    convert(target, SHAPE, batches(planes()))
    assert names(target) == ["set.images.npy"]
    array = load(target, SHAPE)
    assert np.array_equal(array, planes()) and not array.flags.writeable
    assert np.array_equal(np.load(target), planes())  # an ordinary .npy file
    assert "40/40" in capsys.readouterr().err  # the progress bar


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, OSError])
def test_an_interruption_leaves_nothing(target, error):
    def interrupted():
        yield from batches(planes()[:16])
        raise error("the source failed")

    with pytest.raises(error, match="the source failed"):
        convert(target, SHAPE, interrupted())
    assert names(target) == []


def test_what_a_killed_conversion_leaves_is_written_anew(target):
    part = target.with_name(target.name + ".part")
    part.write_bytes(b"x" * (planes().nbytes + 100_000))  # longer than what will be written
    convert(target, SHAPE, batches(planes()))
    assert names(target) == ["set.images.npy"]
    assert np.array_equal(np.load(target), planes())
    assert target.stat().st_size == 128 + planes().nbytes


KILLED = """
import os, pathlib, signal, sys
import numpy as np
from fqvae.data.conversion import convert
def batches():
    yield np.zeros((16, 3, 64, 64), np.uint8)
    os.kill(os.getpid(), signal.SIGKILL)
convert(pathlib.Path(sys.argv[1]), (40, 3, 64, 64), batches())
"""


def test_a_killed_conversion(target):
    killed = subprocess.run([sys.executable, "-c", KILLED, str(target)], timeout=60, capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    assert names(target) == ["set.images.npy.part"]
    convert(target, SHAPE, batches(planes()))
    assert names(target) == ["set.images.npy"]
    assert np.array_equal(np.load(target), planes())


def test_of_two_at_once_one_converts_and_the_other_waits(target):
    started = []
    first_is_under_way = threading.Event()

    def slow(name):
        started.append(name)
        first_is_under_way.set()
        for batch in batches(planes()):
            time.sleep(0.05)
            yield batch

    first = threading.Thread(target=convert, args=(target, SHAPE, slow("first")))
    first.start()
    first_is_under_way.wait(10)
    convert(target, SHAPE, slow("second"))
    assert np.array_equal(np.load(target), planes())
    first.join()
    assert started == ["first"]
    assert names(target) == ["set.images.npy"]


def test_the_second_converts_if_the_first_fails(target):
    failing = threading.Event()

    def fails():
        failing.set()
        time.sleep(0.2)
        yield planes()[:8]
        raise ValueError("the source failed")

    def first():
        with pytest.raises(ValueError, match="the source failed"):
            convert(target, SHAPE, fails())

    thread = threading.Thread(target=first)
    thread.start()
    failing.wait(10)
    convert(target, SHAPE, batches(planes()))
    thread.join()
    assert np.array_equal(np.load(target), planes())
    assert names(target) == ["set.images.npy"]


def test_too_little_space_is_seen_before_anything_is_written(target, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 400_000))
    with pytest.raises(
        OSError,
        match=r"need 0\.00 GB, but .* has 0\.00 GB free; name another folder for them: data.cache=FOLDER",
    ) as error:
        convert(target, SHAPE, batches(planes()))
    assert error.value.errno == errno.ENOSPC
    assert names(target) == []


@pytest.mark.parametrize("limit", [100, 300_000, 128 + 40 * 3 * 64 * 64 - 1])
def test_space_that_runs_out_on_the_way(target, limit):
    """A limit on the size of files stands in for a full disk: in the header, half-way, for the last byte."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(OSError, match=r"could not be written to .*File too large.*original is untouched"):
            convert(target, SHAPE, batches(planes()))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert names(target) == []


def test_a_folder_that_cannot_be_written_to(tmp_path, monkeypatch):
    original = tmp_path / "3dshapes.h5"
    images = small.write_shapes3d(original)
    opened = os.open

    def read_only(path, flags, *rest, **named):
        if os.fspath(path).endswith(".part") and flags & os.O_CREAT and "cache" not in os.fspath(path):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return opened(path, flags, *rest, **named)

    monkeypatch.setattr(os, "open", read_only)
    with pytest.raises(PermissionError, match=r"cannot write the converted images to .*data.cache=FOLDER"):
        SmallShapes3D(original)
    data = SmallShapes3D(original, cache=tmp_path / "cache")
    assert np.array_equal(data.images(np.arange(48)).permute(0, 2, 3, 1).numpy(), images)
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"cannot write the converted images to .*file"):
        SmallShapes3D(original, cache=tmp_path / "file")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (planes()[:39], "must have 40 images, but gave 39"),
        (np.concatenate([planes(), planes()[:1]]), "must have 40 images, but gave 41"),
        (planes()[:, :, :32], r"must be uint8 \(3, 64, 64\), but were uint8 \(3, 32, 64\)"),
        (planes().astype(np.int8), "but were int8"),
    ],
)
def test_batches_that_do_not_fit(target, given, message):
    with pytest.raises(ValueError, match=message):
        convert(target, SHAPE, batches(given))
    assert names(target) == []


def damaged_files():
    whole = small.npy(planes())
    return {
        "cut short": (whole[:-5000], "is damaged"),
        "empty": (b"", "is damaged"),
        "no npy": (b"something else entirely", "is damaged"),
        "another set": (small.npy(planes()[:7]), r"must hold uint8 .*, but holds uint8 \(7, 3, 64, 64\)"),
        "floats": (small.npy(planes().astype(np.float32)), "but holds float32"),
    }


@pytest.mark.parametrize("kind", damaged_files())
def test_a_damaged_converted_file_is_reported_and_kept(target, kind):
    data, message = damaged_files()[kind]
    target.write_bytes(data)
    convert(target, SHAPE, batches(planes()))  # there is a file: nothing to do
    with pytest.raises(ValueError, match=f"{target.name} .*{message}.*delete"):
        load(target, SHAPE)
    assert target.read_bytes() == data
