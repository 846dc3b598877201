"""`fqvae train`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from signal import SIGINT

from fqvae.models.config import ConfigError
from fqvae.runs.checkpoint import read_checkpoint
from fqvae.runs.config import RunConfig
from fqvae.runs.describe import describe_keys
from fqvae.runs.presets import load_file, load_preset, model_names, preset_names
from fqvae.runs.words import SHORT
from fqvae.signals import status_of

_DESCRIPTION = """Train a model in a folder of its own: last.ckpt, config.yaml, metrics.csv,
TensorBoard's events, and reconstructions.png. A run that was interrupted or killed goes on with
--resume FOLDER."""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "train",
        help="train a model",
        usage="fqvae train PRESET|FILE.yaml [key=value ...] [options]",
        description=_DESCRIPTION,
        epilog=f"Presets: {', '.join(preset_names())}. Settings are the keys of config.yaml: steps=1000. "
        f"Short names are {', '.join(SHORT)}. A file has keys of a run, flat or nested, and may say "
        "'preset: NAME' and 'model: NAME'.",
    )
    parser.add_argument("--model", help=f"one of {', '.join(model_names())}; factorqvae if not given")
    parser.add_argument(
        "--protocol",
        choices=("ours", "authors"),
        help="authors: the steps, learning rates, codebooks and order of updates of the paper's program",
    )
    parser.add_argument(
        "--keys", action="store_true", help="list the keys, with what they are here, and do nothing"
    )
    parser.add_argument("--out", type=Path, help="the folder; by default a new one under runs/")
    parser.add_argument("--resume", type=Path, metavar="FOLDER", help="go on with the run in this folder")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument(
        "--fast",
        choices=("auto", "on", "off"),
        default="auto",
        help="bfloat16, channels-last and torch.compile (on a CPU of the official network alone); auto: all "
        "on a GPU, channels-last on a CPU",
    )
    parser.add_argument(
        "--logger",
        choices=("tensorboard", "wandb"),
        default="tensorboard",
        help="wandb: Weights & Biases, if it is installed, besides TensorBoard",
    )
    parser.set_defaults(run=_train)


def _train(options: argparse.Namespace, words: list[str]) -> int:
    if options.resume is not None and options.out is not None:
        raise ConfigError("--out does not go with --resume: a run goes on in its own folder")
    preset = words.pop(0) if words and "=" not in words[0] else None
    if options.keys:
        config = RunConfig() if preset is None else _config(preset, words, options)
        print(*describe_keys(config), sep="\n")
        return 0
    config = _config(preset, words, options)
    from fqvae.training.run import train  # after the settings are checked: Lightning takes seconds to import

    folder = options.resume or options.out or _new_folder(_name(preset, options.model))
    outcome = train(
        config,
        folder,
        resume=options.resume is not None,
        device=options.device,
        fast=options.fast,
        logger=options.logger,
    )
    status = 0 if outcome.signal is None else status_of(outcome.signal)
    if os.environ.get("RANK", "0") != "0":
        return status
    losses = ", ".join(f"{name} {value:.4g}" for name, value in outcome.losses.items())
    print(f"step {outcome.step} of {config.steps}: {losses}")
    if outcome.signal is None:
        print(f"checkpoint and pictures are in {folder}")
    else:
        ended = "interrupted" if outcome.signal == SIGINT else f"ended by {outcome.signal.name}"
        where = f"at step {outcome.step:,} of {config.steps:,}"
        print(f"{ended} {where}; go on with: fqvae train --resume {folder}", file=sys.stderr)
    return status


def _config(preset: str | None, settings: list[str], options: argparse.Namespace) -> RunConfig:
    if preset is not None and options.protocol is not None:
        settings = [*settings, f"protocol={options.protocol}"]
    if preset is not None and _is_file(preset):
        return load_file(preset, options.model, settings)
    if preset is not None:
        return load_preset(preset, options.model or "factorqvae", settings)
    if options.resume is None:
        raise ConfigError(f"name a preset ({', '.join(preset_names())}), a file or a run to --resume")
    if options.model is not None or options.protocol is not None or settings:
        raise ConfigError("--model, --protocol and settings need a preset: a run that is resumed has its own")
    return read_checkpoint(options.resume).config


def _is_file(preset: str) -> bool:
    return preset.endswith((".yaml", ".yml"))


def _name(preset: str | None, model: str | None) -> str:
    """The name of a new run's folder."""
    if preset is not None and _is_file(preset):
        return Path(preset).stem if model is None else f"{Path(preset).stem}-{model}"
    return f"{preset}-{model or 'factorqvae'}"


def _new_folder(name: str) -> Path:
    """The first of runs/name, runs/name-2, runs/name-3 and so on that does not exist."""
    number = 1
    while (folder := Path("runs") / (name if number == 1 else f"{name}-{number}")).exists():
        number += 1
    return folder
