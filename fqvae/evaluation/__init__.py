"""Trained models, evaluated: scores of held-out images, and tables that compare runs."""

from fqvae.evaluation.order import ordered_codes
from fqvae.evaluation.scores import (
    Evaluation,
    Options,
    evaluate,
    find_evaluation,
    read_evaluation,
    write_evaluation,
)
from fqvae.evaluation.table import Comparison, comparison

__all__ = [
    "Comparison",
    "Evaluation",
    "Options",
    "comparison",
    "evaluate",
    "find_evaluation",
    "ordered_codes",
    "read_evaluation",
    "write_evaluation",
]
