"""Figures to files."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from matplotlib.figure import Figure

from fqvae.figures.style import DPI, styled


@styled
def save(figure: Figure, path: str | Path) -> tuple[Path, Path]:
    """Write a figure as PNG and SVG.

    Both are written under temporary names and renamed when both are complete: a failure on the way leaves
    older files as they were.

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
    temporary = [file.with_name(f"{file.name}.{os.getpid()}.tmp") for file in files]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(temporary[0], format="png", dpi=DPI)
        figure.savefig(temporary[1], format="svg", dpi=DPI, metadata={"Date": None})
        for made, file in zip(temporary, files, strict=True):
            os.replace(made, file)
    except OSError as error:
        raise OSError(f"could not write {files[0]} and {files[1].name}: {error}") from error
    finally:
        for made in temporary:
            with contextlib.suppress(OSError):
                made.unlink(missing_ok=True)
    return files
