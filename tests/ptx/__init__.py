"""Runs compiled GPU code (PTX) on the CPU, with checks that no GPU has."""

from .kernel import Kernel, Stats, load
from .parse import PtxError

__all__ = ["Kernel", "PtxError", "Stats", "load"]
