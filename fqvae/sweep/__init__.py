"""Sweeps: configurations x seeds, trained and evaluated by child processes, and compared in one table."""

from fqvae.sweep.file import Entry, Sweep, read_sweep, sweep_names
from fqvae.sweep.plan import Job, plan

__all__ = ["Entry", "Job", "Sweep", "plan", "read_sweep", "sweep_names"]
