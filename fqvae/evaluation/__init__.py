"""Trained models, evaluated."""

from fqvae.evaluation.encoding import Encoded, Run, encode, held_out, open_run, ordered_codes

__all__ = ["Encoded", "Run", "encode", "held_out", "open_run", "ordered_codes"]
