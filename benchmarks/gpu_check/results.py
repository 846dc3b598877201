"""Files of JSON lines: every line is with the system as soon as it is written."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any


class Lines:
    """Appends to a file; `fresh` empties it first."""

    def __init__(self, path: Path, fresh: bool = False) -> None:
        self._path = path
        self._lock = threading.Lock()
        path.open("wb" if fresh else "ab").close()

    def write(self, **fields: Any) -> None:
        """One line, in one system call."""
        text = json.dumps(fields, default=str) + "\n"
        with self._lock, self._path.open("ab", buffering=0) as file:
            file.write(text.encode())


def read(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a file; a last one that was cut short is left out."""
    whole = path.read_text().rpartition("\n")[0] if path.exists() else ""
    return [json.loads(line) for line in whole.splitlines()]
