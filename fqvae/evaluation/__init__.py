"""Trained models, evaluated: measures on held-out images, and tables that compare runs."""

from fqvae.evaluation.diagnosis import Finding, diagnose
from fqvae.evaluation.files import contents, find_evaluation, read_evaluation, write_evaluation
from fqvae.evaluation.measures import MEASURES, Measure
from fqvae.evaluation.measuring import Evaluation, evaluate
from fqvae.evaluation.options import Options
from fqvae.evaluation.order import ordered_codes
from fqvae.evaluation.table import Comparison, comparison

__all__ = [
    "MEASURES",
    "Comparison",
    "Evaluation",
    "Finding",
    "Measure",
    "Options",
    "comparison",
    "contents",
    "diagnose",
    "evaluate",
    "find_evaluation",
    "ordered_codes",
    "read_evaluation",
    "write_evaluation",
]
