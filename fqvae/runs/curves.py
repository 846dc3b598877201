"""metrics.csv, read."""

from __future__ import annotations

import csv
from pathlib import Path


def read_columns(path: str | Path) -> dict[str, list[float]]:
    """metrics.csv by columns. A last line that a kill has cut short is left out.

    Raises:
        FileNotFoundError: there is none. ValueError: not such a file; it is named.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        header, *rows = csv.reader(text[: text.rfind("\n") + 1].splitlines())
        if not rows or {len(row) for row in rows} != {len(header)}:
            raise ValueError("it has no rows" if not rows else "its rows differ in length")
        columns = zip(*[[float(cell) for cell in row] for row in rows], strict=True)
        return {name: list(column) for name, column in zip(header, columns, strict=True)}
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path} is no table of numbers: {error}") from error
