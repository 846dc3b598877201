"""How all figures look: colours, letters, sizes; and how one is made, without pyplot's global state."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import matplotlib
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import Formatter

DPI = 200
WIDTH = 7.0  # inches, of figures that are not made of images: a text block's

INK, MUTED, FAINT, PAPER = "#1b2430", "#5b6675", "#dfe4ea", "#ffffff"
ACCENT, SECOND = "#0b6aa2", "#c8501a"  # told apart by their lightness alone, too
LINES = (ACCENT, SECOND, "#12876b", "#8d5a97", "#8a6d1c", "#5b6675")
# One hue, lightness falling all the way: the order shows without colour vision, and in grey print.
SEQUENTIAL = LinearSegmentedColormap.from_list(
    "fqvae", ["#f6f8fb", "#c9dcec", "#85b3d5", "#3f7fb1", "#14507f", "#082a4a"]
)

STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # matplotlib's own: the same figure on every machine
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 5,
    "axes.titlecolor": INK,
    "axes.labelsize": 7.5,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.6,
    "axes.facecolor": PAPER,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "figure.facecolor": PAPER,
    "figure.dpi": DPI,
    "legend.frameon": False,
    "legend.fontsize": 7,
    "lines.linewidth": 1.2,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "svg.hashsalt": "fqvae",  # the same picture, the same file
}

P = ParamSpec("P")
R = TypeVar("R")


def styled(function: Callable[P, R]) -> Callable[P, R]:
    """Run a function with this style, whatever the caller's settings; they are as before afterwards."""

    @functools.wraps(function)
    def inside(*args: P.args, **kwargs: P.kwargs) -> R:
        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            matplotlib.rcParams.update(STYLE)
            return function(*args, **kwargs)

    return inside


def canvas(width: int, height: int) -> tuple[Figure, Axes]:
    """A figure of so many pixels, and axes that cover it, in pixels from the upper left corner.

    Images placed on whole pixels, enlarged by whole factors, keep every pixel as it was.
    """
    figure = Figure((width / DPI, height / DPI))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    return figure, axes


def two_decimals(value: float) -> str:
    """A number as it is written in all figures."""
    return Formatter.fix_minus(f"{round(float(value), 2) + 0.0:.2f}")  # + 0.0: without a sign if it is 0


def panels(count: int, columns: int, height: float) -> tuple[Figure, list[Axes]]:
    """A figure of the usual width with `count` axes, each `height` inches high, row by row."""
    columns = min(count, columns)
    rows = -(-count // columns)
    figure = Figure((WIDTH, rows * height), layout=spaced())
    return figure, [figure.add_subplot(rows, columns, number + 1) for number in range(count)]


def spaced() -> ConstrainedLayoutEngine:
    """Axes side by side, with room between them and at the edges."""
    return ConstrainedLayoutEngine(w_pad=0.05, h_pad=0.06)


def literal(text: str) -> str:
    """People's own words, such as names of factors, for matplotlib, to which $ begins mathematics."""
    return text.replace("$", r"\$")


def headings(figure: Figure, title: str, x: str = "", y: str = "") -> None:
    """A title above all axes, and what these have in common along x and y."""
    figure.suptitle(literal(title), fontsize=9, fontweight="bold", x=0.01, ha="left")
    figure.supxlabel(x, fontsize=7.5, color=MUTED)
    figure.supylabel(y, fontsize=7.5, color=MUTED)
