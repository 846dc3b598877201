"""Configurations, presets and checkpoints. `fqvae.training.run.train` needs the extra `train` (Lightning)."""

from fqvae.training.checkpoint import Checkpoint, CheckpointError, load, read_checkpoint
from fqvae.training.config import DataConfig, OptimizerConfig, RunConfig, from_flat, to_flat
from fqvae.training.presets import load_preset, model_names, preset_names

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "DataConfig",
    "OptimizerConfig",
    "RunConfig",
    "from_flat",
    "load",
    "load_preset",
    "model_names",
    "preset_names",
    "read_checkpoint",
    "to_flat",
]
