"""Pictures of models, drawn with matplotlib and without pyplot: each function returns a Figure."""

from fqvae.figures.animation import animate
from fqvae.figures.codes import code_usage, value_histograms
from fqvae.figures.curves import training_curves
from fqvae.figures.images import traversals
from fqvae.figures.matrices import heatmap
from fqvae.figures.saving import save
from fqvae.figures.sweeps import Point, measures_against, t_interval
from fqvae.figures.traversal import Traversal, spread_codes, spread_values, traverse, used_codes

__all__ = [
    "Point",
    "Traversal",
    "animate",
    "code_usage",
    "heatmap",
    "measures_against",
    "save",
    "spread_codes",
    "spread_values",
    "t_interval",
    "training_curves",
    "traversals",
    "traverse",
    "used_codes",
    "value_histograms",
]
