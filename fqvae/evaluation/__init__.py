"""Trained models, evaluated: codes of held-out images, scores, and tables that compare runs."""

from fqvae.evaluation.encoding import Encoded, Run, encode, encode_codes, held_out, open_run, ordered_codes
from fqvae.evaluation.scores import Evaluation, Options, evaluate, read_evaluation, write_evaluation
from fqvae.evaluation.table import Comparison, comparison

__all__ = [
    "Comparison",
    "Encoded",
    "Evaluation",
    "Options",
    "Run",
    "comparison",
    "encode",
    "encode_codes",
    "evaluate",
    "held_out",
    "open_run",
    "ordered_codes",
    "read_evaluation",
    "write_evaluation",
]
