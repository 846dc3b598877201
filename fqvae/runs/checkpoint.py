"""Checkpoints: written whole or not at all, read without running anything that is in them."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from fqvae.files import write_whole
from fqvae.models.autoencoder import Autoencoder
from fqvae.models.config import ConfigError
from fqvae.models.networks import build_discriminator
from fqvae.runs.config import RunConfig, from_flat
from fqvae.runs.names import CHECKPOINT

FORMAT = 2


class CheckpointError(ValueError):
    """A file that is no checkpoint, is damaged, or belongs to another configuration."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint: the run's configuration, the steps it has taken, and the weights of `Training`.

    trained_on: the images, as `fqvae.runs.data.describe` tells them; None in an old checkpoint.
    """

    path: Path
    config: RunConfig
    step: int
    state: dict[str, Tensor]
    trained_on: dict[str, Any] | None = None


def checkpoint_path(run_or_checkpoint: str | Path) -> Path:
    """The checkpoint file of a run's folder; a file is taken as it is. Raises FileNotFoundError."""
    path = Path(run_or_checkpoint)
    file = path / CHECKPOINT if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(
            f"there is no checkpoint {CHECKPOINT} in the folder {path}"
            if path.is_dir()
            else f"there is no run or checkpoint {path}"
        )
    return file


def read_checkpoint(run_or_checkpoint: str | Path) -> Checkpoint:
    """Read a run's checkpoint, its tensors on the CPU. Raises FileNotFoundError, CheckpointError."""
    path = checkpoint_path(run_or_checkpoint)
    content = read_plain(path)
    header, state = content.get("fqvae"), content.get("state_dict")
    if not isinstance(header, dict) or not isinstance(state, dict):
        raise CheckpointError(f"{path} is not a checkpoint of fqvae")
    if header.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} has the format {header.get('format')}, but this version reads {FORMAT}"
        )
    values, step = header.get("config"), header.get("step")
    if not isinstance(values, dict) or not isinstance(step, int):
        raise CheckpointError(f"{path} is not a checkpoint of fqvae: it lacks a configuration or a step")
    try:
        config = from_flat(values)
    except ConfigError as error:
        raise CheckpointError(f"{path} has a configuration that this version cannot read: {error}") from error
    if not 0 <= step <= config.steps:
        raise CheckpointError(f"{path} is damaged: it is at step {step} of {config.steps}")
    trained_on = header.get("data")
    known = {"name", "images", "shape", "digest", "reopens"}
    if trained_on is not None and not (isinstance(trained_on, dict) and trained_on.keys() >= known):
        raise CheckpointError(f"{path} is not a checkpoint of fqvae: it does not tell what it was trained on")
    return Checkpoint(path, config, step, state, trained_on)


def check_sizes(
    content: dict[str, Any], state: dict[str, Tensor], usage: Tensor, optimizers: Sequence[Optimizer]
) -> None:
    """Raise CheckpointError unless training can go on: everything is there, and as large as it has to be.

    content: the whole checkpoint's. The others: as the module that is about to load it has them.
    """
    saved = content.get("optimizer_states", [])
    if len(saved) != len(optimizers):
        raise CheckpointError(
            f"the checkpoint must have the states of {len(optimizers)} optimizer(s) to go on from, "
            f"but has {len(saved)}"
        )
    wanted, found = {**state, "usage": usage}, {**content["state_dict"], **content["fqvae"]}
    for number, (optimizer, states) in enumerate(zip(optimizers, saved, strict=True)):
        parameters = [each for group in optimizer.param_groups for each in group["params"]]
        for place, moments in states["state"].items():
            # The fused kernel does not compare sizes: it would read and write beyond the end.
            for name in ("exp_avg", "exp_avg_sq"):
                key = f"optimizer {number}, {name} {place}"
                wanted[key], found[key] = parameters[place], moments[name]
    for key, tensor in wanted.items():
        shape = tuple(found[key].shape) if key in found else None
        if shape != tuple(tensor.shape):
            raise CheckpointError(
                f"the checkpoint is damaged or of another version: {key} must have shape "
                f"{tuple(tensor.shape)}, but {'is missing' if shape is None else f'has {shape}'}"
            )


def read_plain(path: str | Path) -> dict[str, Any]:
    """The content of a file of tensors and plain values. Raises CheckpointError if it is anything else."""
    with open(path, "rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                damaged = archive.testzip()  # torch.load does not compare the checksums
            if damaged is not None:
                raise zipfile.BadZipFile(f"the checksum of {damaged} is wrong")
            file.seek(0)
            content = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # of many types, by where the damage is
            raise CheckpointError(
                f"{path} is damaged, or is not a checkpoint ({type(error).__name__})"
            ) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} is not a checkpoint of fqvae")
    return content


def write_plain(content: dict[str, Any], path: str | Path) -> None:
    """Write a file of tensors and plain values, whole or not at all. Raises OSError."""
    write_whole(path, lambda file: torch.save(content, file))


def load(run_or_checkpoint: str | Path, *, device: torch.device | str = "cpu") -> Autoencoder:
    """The trained autoencoder of a run's folder or of a checkpoint file, in `eval()`.

    Where the checkpoint names a network of somebody's own (`fqvae.network`), that module is imported and its
    function runs; nothing else of a checkpoint is executed.

    Raises:
        FileNotFoundError: there is no such run or file.
        CheckpointError: the file is damaged, or no checkpoint, or does not fit the configuration it names.
        ConfigError: a network of somebody's own that cannot be imported, fails, or gives other shapes than it
            must.
    """
    return build_model(read_checkpoint(run_or_checkpoint)).to(device)


def check_fits(checkpoint: Checkpoint) -> None:
    """Raise CheckpointError unless the weights have the sizes that the configuration asks for.

    The networks are made without memory for this: a damaged configuration may claim any size.
    """
    data, model = checkpoint.config.data, checkpoint.config.model
    unfit = f"{checkpoint.path} does not fit its own configuration"
    kept = [name for name in checkpoint.state if name.startswith("discriminator.")]
    layers = sum(name.endswith(".weight") for name in kept)
    if kept and layers != model.discriminator.layers:
        raise CheckpointError(
            f"{unfit}: model.discriminator.layers is {model.discriminator.layers}, but there are {layers}"
        )
    try:
        with torch.device("meta"):
            autoencoder = Autoencoder(model, data.size, channels=data.channels)
            wanted = {f"autoencoder.{name}": each for name, each in autoencoder.state_dict().items()}
            if kept:
                discriminator = build_discriminator(
                    model.discriminator, autoencoder.latent.discriminator_width
                )
                wanted.update(
                    {f"discriminator.{name}": each for name, each in discriminator.state_dict().items()}
                )
    except ConfigError:
        if not model.network.is_own:
            raise
        return  # it says what is wrong, or does well, when it is made with memory
    except (RuntimeError, OverflowError) as error:  # numbers that PyTorch cannot count with
        raise CheckpointError(f"{unfit}: its networks cannot be made: {error}") from error
    for name, tensor in wanted.items():
        found = checkpoint.state.get(name)
        if is_lazy(tensor):
            continue  # a lazy layer of somebody's own network gets its size from the first images
        if not isinstance(found, Tensor) or found.shape != tensor.shape:
            has = f"has {tuple(found.shape)}" if isinstance(found, Tensor) else "is missing"
            raise CheckpointError(f"{unfit}: {name} must have shape {tuple(tensor.shape)}, but {has}")
        if found.untyped_storage().nbytes() < found.numel() * found.element_size():
            raise CheckpointError(f"{unfit}: the numbers of {name}, {tuple(found.shape)}, are not all there")


def build_model(checkpoint: Checkpoint) -> Autoencoder:
    """The autoencoder of a checkpoint, in `eval()`. Raises CheckpointError if it does not fit."""
    check_fits(checkpoint)
    data = checkpoint.config.data
    model = Autoencoder(checkpoint.config.model, data.size, channels=data.channels)
    prefix = "autoencoder."
    state = {
        name[len(prefix) :]: value for name, value in checkpoint.state.items() if name.startswith(prefix)
    }
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(f"{checkpoint.path} does not fit its own configuration: {error}") from error
    return model.eval()
