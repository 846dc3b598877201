"""Files that are written whole or not at all, and locks between processes."""

from __future__ import annotations

import contextlib
import os
import re
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, BinaryIO, TypeAlias

try:
    import fcntl
except ModuleNotFoundError:  # Windows: there are no locks of this kind
    fcntl = None  # type: ignore[assignment]

Content: TypeAlias = str | bytes | Callable[[BinaryIO], Any]


def write_whole(path: str | Path, content: Content) -> None:
    """Write a file under a temporary name, then rename it: the file is the old or the new one, whole.

    Args:
        path: the file; folders that are missing are made.
        content: a text, written as UTF-8; bytes; or a function that writes to the open file.

    Raises:
        OSError: the file cannot be written; the message names it, and what was there is kept.
    """
    write_together({path: content})


def write_together(files: Mapping[str | Path, Content] | Mapping[Path, Content]) -> None:
    """As `write_whole` for several files: all are complete before the first is renamed, the last one last.

    What a killed process has left under a temporary name of one of these files is removed.
    """
    contents = {Path(path): content for path, content in files.items()}
    temporary = {path: path.with_name(_temporary_name(path.name)) for path in contents}
    for path in contents:
        remove_leftovers(path)
    path = next(iter(contents))
    try:
        for path, content in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(temporary[path], "wb") as file:
                if callable(content):
                    content(file)
                else:
                    file.write(content.encode() if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
        for path, made in temporary.items():
            os.replace(made, path)
    except (OSError, RuntimeError) as error:
        # PyTorch's own error, a RuntimeError, hides the one that says why.
        reason = error.__context__ if isinstance(error, RuntimeError) and error.__context__ else error
        raise named_error(reason, f"could not write {path}, what was there is kept") from error
    finally:
        for made in temporary.values():
            with contextlib.suppress(OSError):
                made.unlink(missing_ok=True)


def remove_leftovers(path: Path) -> None:
    """Remove what processes of this machine that are gone have left under a temporary name of this file."""
    pattern = re.compile(re.escape(path.name) + r"\.(?P<host>.+)\.(?P<process>\d+)\.tmp")
    with contextlib.suppress(OSError):
        for found in path.parent.glob(f"{_quoted(path.name)}.*.tmp"):
            name = pattern.fullmatch(found.name)
            if name is not None and name["host"] == _host() and not _is_alive(int(name["process"])):
                found.unlink(missing_ok=True)


def lock(file: int | IO[Any], *, wait: bool = False) -> bool:
    """Take the lock of an open file or folder. It is held until the file is closed wherever it is open.

    Args:
        file: a descriptor, or an open file.
        wait: until another process has let go of it.

    Returns:
        False if another process holds it and `wait` is false. True too where the system, or the file system,
        knows no such locks.
    """
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


def check_writable(folder: str | Path) -> None:
    """Raise OSError unless a file can be made in the folder or, if it does not exist, in the nearest above.

    For work that takes long, so that this is known before it begins. Nothing is left behind.
    """
    folder = nearest = Path(folder)
    try:
        while not nearest.exists():
            nearest = nearest.parent
        probe = nearest / _temporary_name("probe")
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise named_error(error, f"cannot write in {folder}") from error


def named_error(reason: BaseException, message: str) -> OSError:
    """An OSError that says the message, a colon and the reason, with the reason's number."""
    error = OSError(f"{message}: {getattr(reason, 'strerror', None) or reason}")
    error.errno = getattr(reason, "errno", None)
    return error


def _temporary_name(name: str) -> str:
    return f"{name}.{_host()}.{os.getpid()}.tmp"


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "-", socket.gethostname()) or "host"


def _quoted(name: str) -> str:
    """The name for a glob pattern."""
    return re.sub(r"([\[*?])", r"[\1]", name)


def _is_alive(process: int) -> bool:
    if process == os.getpid():
        return True
    if os.name != "posix":
        return True  # os.kill would end it there
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
