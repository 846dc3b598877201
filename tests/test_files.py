"""Whole writes and locks (fqvae/files.py)."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
import torch

from fqvae import files


def test_a_file_is_written_whole_from_all_kinds_of_content(tmp_path):
    target = tmp_path / "new" / "a.txt"
    for content, expected in (
        ("ä", "ä".encode()),
        (b"\x00\xff", b"\x00\xff"),
        (lambda file: file.write(b"by a function"), b"by a function"),
    ):
        files.write_whole(target, content)
        assert target.read_bytes() == expected
        assert [each.name for each in target.parent.iterdir()] == ["a.txt"]


def test_of_several_files_none_changes_when_one_fails(tmp_path):
    def fails(file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    first, second = tmp_path / "first", tmp_path / "second"
    first.write_text("old")
    with pytest.raises(
        OSError, match=r"could not write .*second, what was there is kept: No space"
    ) as raised:
        files.write_together({first: "new", second: fails})
    assert raised.value.errno == 28
    assert {each.name: each.read_text() for each in tmp_path.iterdir()} == {"first": "old"}


@pytest.mark.skipif(not pathlib.Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_is_named_with_its_path(tmp_path, monkeypatch):
    # PyTorch raises an error of its own that hides the system's.
    monkeypatch.setattr(files, "_temporary_name", lambda name: "full")
    (tmp_path / "full").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"could not write .*weights\.pt, .* is kept: No space left on device"):
        files.write_whole(tmp_path / "weights.pt", lambda file: torch.save(torch.zeros(1 << 20), file))


def test_an_error_of_the_content_passes_through(tmp_path):
    def fails(file):
        raise ValueError("not of the disk")

    with pytest.raises(ValueError, match="not of the disk"):
        files.write_whole(tmp_path / "a", fails)
    assert not list(tmp_path.iterdir())


def test_what_a_killed_write_left_goes_with_the_next(tmp_path):
    code = f"""
import os, sys, time
sys.path.insert(0, {str(pathlib.Path(files.__file__).parents[1])!r})
from fqvae import files
def write(file):
    file.write(b"half")
    file.flush()
    print("writing", flush=True)
    time.sleep(60)
files.write_whole(sys.argv[1], write)
"""
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "last.ckpt")], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout.readline() == "writing\n"
    (left,) = tmp_path.iterdir()
    files.remove_leftovers(tmp_path / "last.ckpt")
    assert left.exists()  # its process is at work
    child.send_signal(signal.SIGKILL)
    child.communicate()
    other = tmp_path / "last.ckpt.other-host.1.tmp"  # of a machine whose processes are not known here
    other.touch()
    files.write_whole(tmp_path / "last.ckpt", "whole")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["last.ckpt", other.name]


def test_a_lock_is_held_until_the_file_is_closed(tmp_path):
    with open(tmp_path / "lock", "w") as first, open(tmp_path / "lock", "w") as second:
        assert files.lock(first)
        assert not files.lock(second)
        first.close()
        assert files.lock(second)


def test_without_locks_all_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "fcntl", None)
    with open(tmp_path / "lock", "w") as first, open(tmp_path / "lock", "w") as second:
        assert files.lock(first) and files.lock(second)


def test_a_system_without_fcntl_loads_the_package():
    code = "import sys; sys.modules['fcntl'] = None; import fqvae, fqvae.data, fqvae.cli"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_folder_that_cannot_be_written(tmp_path):
    files.check_writable(tmp_path / "not" / "made")
    files.check_writable(tmp_path)
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"cannot write in .*file/inside: "):
        files.check_writable(tmp_path / "file" / "inside")


def test_waiting_for_a_lock(tmp_path):
    code = """
import sys, time
from fqvae import files
file = open(sys.argv[1], "w")
assert files.lock(file)
print("held", flush=True)
time.sleep(0.5)
"""
    environment = {**os.environ, "PYTHONPATH": str(pathlib.Path(files.__file__).parents[1])}
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "lock")],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert child.stdout.readline() == "held\n"
    began = time.monotonic()
    with open(tmp_path / "lock", "w") as file:
        assert not files.lock(file)
        assert files.lock(file, wait=True)
    assert time.monotonic() - began > 0.2
    child.communicate()
