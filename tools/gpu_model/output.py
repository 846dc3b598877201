"""Tables of the cost model: printed, in Markdown, and as CSV."""

from __future__ import annotations

import csv
from pathlib import Path as FilePath
from typing import Any


def show(table: list[dict[str, Any]], markdown: bool) -> None:
    """Print a table; columns that hold nothing but zeros are left out."""
    columns = [name for name in table[0] if any(row[name] not in (0, 0.0) for row in table)]
    cells = [columns] + [[_cell(row[name]) for name in columns] for row in table]
    numeric = [isinstance(table[0][name], (int, float)) for name in columns]
    if markdown:
        cells.insert(1, ["---:" if number else "---" for number in numeric])
        print("\n".join("| " + " | ".join(row) + " |" for row in cells))
        return
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    for row in cells:
        padded = [c.rjust(w) if n else c.ljust(w) for c, w, n in zip(row, widths, numeric, strict=True)]
        print("  ".join(padded).rstrip())


def _cell(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if value >= 1000 else f"{value:.1f}" if value >= 100 else f"{value:.2f}"


def write_rows(path: FilePath, lines: list[dict[str, Any]]) -> None:
    """One line for each dictionary; the first one names the columns."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
