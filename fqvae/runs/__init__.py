"""A run: a folder with a trained model, its configuration and what is known of it."""

from fqvae.runs.checkpoint import Checkpoint, CheckpointError, load, read_checkpoint
from fqvae.runs.config import DataConfig, OptimizerConfig, RunConfig, from_flat
from fqvae.runs.curves import read_columns
from fqvae.runs.data import open_data
from fqvae.runs.encoding import Codes, Encoded, encode, encode_codes, held_out
from fqvae.runs.keys import to_flat
from fqvae.runs.presets import load_preset, model_names, preset_names
from fqvae.runs.run import Run, open_run

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "Codes",
    "DataConfig",
    "Encoded",
    "OptimizerConfig",
    "Run",
    "RunConfig",
    "encode",
    "encode_codes",
    "from_flat",
    "held_out",
    "load",
    "load_preset",
    "model_names",
    "open_data",
    "open_run",
    "preset_names",
    "read_checkpoint",
    "read_columns",
    "to_flat",
]
