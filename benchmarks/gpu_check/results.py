"""Files of JSON lines: every line is with the system as soon as it is written."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any


class Lines:
    """Appends to a file; `fresh` empties it first."""

    def __init__(self, path: Path, fresh: bool = False) -> None:
        self._file = path.open("wb" if fresh else "ab", buffering=0)
        self._lock = threading.Lock()

    def write(self, **fields: Any) -> None:
        """One line, in one system call."""
        text = json.dumps(fields, default=str) + "\n"
        with self._lock:
            self._file.write(text.encode())


def read(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a file; a last one that was cut short is left out."""
    found = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found
