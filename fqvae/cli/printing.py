"""Output that no terminal's encoding breaks."""

from __future__ import annotations

import codecs
import os
import select
import unicodedata
from typing import Any

_PLAIN = {
    "\u00b1": "+-",
    "\u00d7": "x",
    "\u2013": "-",
    "\u2014": "-",
    "\u2212": "-",
    "\u2018": "'",
    "\u2019": "'",
    "\u201c": '"',
    "\u201d": '"',
    "\u2026": "...",
    "\u2192": "->",
    "\u03b2": "beta",
    "\u03b3": "gamma",
    "\u00b2": "^2",
}


def make_printable(*streams: Any) -> None:
    """Let text streams write what their encoding lacks in plain characters, ± as +-, instead of failing.

    Streams that cannot be told so are left as they are.
    """
    codecs.register_error("fqvae.plain", _plain)
    for stream in streams:
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="fqvae.plain")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether Python, PyTorch or a GPU had no memory left."""
    # PyTorch's class is asked by name, since PyTorch may not be imported yet; on the CPU it has none.
    return isinstance(error, MemoryError) or (
        type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)
    )


def nobody_reads(stream: Any) -> bool:
    """Whether the reader of a stream's pipe is gone, as with `fqvae ... | head`; then it ends nowhere.

    False for a stream without a file of its own, and on Windows, where one cannot ask.
    """
    try:
        file = stream.fileno()
    except (AttributeError, OSError):
        return False
    if not hasattr(select, "poll"):
        return False
    poll = select.poll()
    poll.register(file, 0)
    if not any(event & select.POLLERR for _, event in poll.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), file)
    return True


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(map(_ascii, text)), error.end


def _ascii(character: str) -> str:
    if character in _PLAIN:
        return _PLAIN[character]
    bare = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return bare or "?"
