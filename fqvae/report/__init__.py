"""A run's report: one HTML file that needs nothing else."""

from fqvae.report.build import build_report

__all__ = ["build_report"]
