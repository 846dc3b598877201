"""What a sweep has to do: its runs, and how far each of them is."""

from __future__ import annotations

import contextlib
import csv
import fnmatch
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fqvae.models.config import ConfigError
from fqvae.runs.checkpoint import CheckpointError, read_checkpoint
from fqvae.runs.config import RunConfig, differences
from fqvae.runs.names import CHECKPOINT, CURVES, PICTURE
from fqvae.runs.presets import load_preset
from fqvae.sweep.file import Sweep

if TYPE_CHECKING:
    from fqvae.evaluation.options import Options

# What a run that was killed before its first checkpoint leaves: nothing in it is worth keeping.
_LEFTOVERS = ("config.*", "metrics.*", "hparams.yaml", "events.out.tfevents.*", "*.tmp")


@dataclass(frozen=True)
class Job:
    """A run of a sweep.

    folder: of the run. words: of `fqvae train`, but for the folder.
    """

    name: str
    seed: int
    folder: Path
    config: RunConfig
    words: tuple[str, ...]

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.name}, seed {self.seed}"

    @property
    def log(self) -> Path:
        """What its processes print. Beside the folder, which `fqvae train` wants to find empty."""
        return self.folder.with_suffix(".log")


def plan(sweep: Sweep, out: Path) -> list[Job]:
    """All runs of a sweep in the folder `out`: every configuration with the first seed, then the next."""
    jobs = []
    for seed in sweep.seeds:
        for name, entry in sweep.runs.items():
            settings = (*entry.settings, f"seed={seed}")
            config = load_preset(sweep.preset, entry.model, settings)
            words = ("train", sweep.preset, "--model", entry.model, *settings)
            jobs.append(Job(name, seed, out / name / f"seed-{seed}", config, words))
    return jobs


def steps_trained(job: Job) -> int | None:
    """The steps in a run's checkpoint; None if there is none yet.

    Raises CheckpointError for a damaged one, ConfigError for one of another configuration.
    """
    if not (job.folder / CHECKPOINT).exists():
        return None
    checkpoint = read_checkpoint(job.folder)
    if different := differences(job.config, checkpoint.config):
        raise ConfigError(
            f"{job.folder} was trained with another configuration than {job.title} has now: "
            f"{', '.join(different)}; change it back, name another run, or take another --out"
        )
    return checkpoint.step


def steps_missing(job: Job) -> str | None:
    """How far the run is, if it has not all its steps: "step 100 of 3,000". Raises as `steps_trained`."""
    step = steps_trained(job) or 0
    return None if step == job.config.steps else f"step {step:,} of {job.config.steps:,}"


def check_unchanged(jobs: Iterable[Job]) -> None:
    """Raise ConfigError if a run that is there has another configuration; damage is for its own turn."""
    for job in jobs:
        with contextlib.suppress(CheckpointError):
            steps_trained(job)


def train_words(job: Job) -> list[str] | None:
    """The words of `fqvae` that begin the run or go on with it; None if it is trained.

    The picture is the last that a run writes: without it `fqvae train --resume` makes it, and nothing else.
    """
    step = steps_trained(job)
    if step == job.config.steps and (job.folder / PICTURE).exists():
        return None
    return [*job.words, "--out" if step is None else "--resume", str(job.folder)]


def evaluate_words(job: Job, options: Options) -> list[str]:
    """The words of `fqvae` that evaluate the run, or find that this is done."""
    words = [f"--{key}={value}" for key, value in vars(options).items() if value is not None]
    return ["evaluate", str(job.folder), *words]


def clear_leftovers(job: Job) -> None:
    """Empty the folder of a run that was killed before its first checkpoint.

    Raises FileExistsError if there is anything that no such run has left; then nothing is removed.
    """
    if (job.folder / CHECKPOINT).exists() or not job.folder.exists():
        return
    files = list(job.folder.iterdir()) if job.folder.is_dir() else [job.folder]
    for file in files:
        if not file.is_file() or not any(fnmatch.fnmatchcase(file.name, each) for each in _LEFTOVERS):
            raise FileExistsError(f"{job.folder} is in use by something else: there is {file.name} in it")
    for file in files:
        file.unlink()


def steps_logged(job: Job) -> int:
    """The step of the last row of metrics.csv: how far a run that is under way has come."""
    try:
        with open(job.folder / CURVES, encoding="utf-8", newline="") as file:
            rows = [row[0] for row in csv.reader(file) if row]
        return int(rows[-1])
    except (OSError, ValueError, IndexError):  # not there yet, or only its heading
        return 0
