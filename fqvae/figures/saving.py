"""Figures to files."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from fqvae.figures.style import DPI, styled
from fqvae.files import write_together


@styled
def save(figure: Figure, path: str | Path) -> tuple[Path, Path]:
    """Write a figure as PNG and SVG.

    A failure on the way leaves older files as they were.

    Args:
        figure: drawn with this package's functions.
        path: without suffix; folders that are missing are made.

    Returns:
        The two files.

    Raises:
        OSError: they cannot be written.
    """
    path = Path(path)
    files = path.with_name(f"{path.name}.png"), path.with_name(f"{path.name}.svg")
    write_together(
        {
            files[0]: lambda file: figure.savefig(file, format="png", dpi=DPI),
            files[1]: lambda file: figure.savefig(file, format="svg", dpi=DPI, metadata={"Date": None}),
        }
    )
    return files
