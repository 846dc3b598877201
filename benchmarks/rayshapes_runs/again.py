"""Train and evaluate a run again from what is kept of it, and compare all that was measured."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from fqvae.evaluation import read_evaluation
from fqvae.evaluation.measures import TABLES
from fqvae.runs.names import CONFIG
from fqvae.sweep import plan, read_sweep
from rayshapes_runs.store import Store


def first_kept(results: Path, experiment: str) -> Path | None:
    """The folder of the first run of an experiment whose results are kept. Raises as `Store.has`."""
    sweep = read_sweep(experiment)
    store = Store(results / sweep.name)
    kept = (store.place(job) for job in plan(sweep, store.folder) if store.has(job, sweep.evaluate))
    return next(kept, None)


def make_again(place: Path, folder: Path) -> list[str]:
    """What differs between the results in place and those of the same run made again in folder.

    Measures with codes by index are not made again.

    Returns:
        What is said of each measure and table that is not the same to the last digit.

    Raises:
        ValueError, OSError: there is no such run, or it fails; the message ends with what it printed.
    """
    before = read_evaluation(place)
    options = [f"--{key}={value}" for key, value in before["options"].items() if value is not None]
    _fqvae("train", str(place / CONFIG), "--out", str(folder), "--device", "cpu")
    _fqvae("evaluate", str(folder), *options, "--jobs", "1", "--device", "cpu")
    return differences(before, read_evaluation(folder))


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """A text for each measure and table that is not the same."""
    old, new = before["scores"], after["scores"]
    names = [name for name in sorted({*old, *new}) if old.get(name) != new.get(name)]
    texts = [f"{name}: {old.get(name)} before, {new.get(name)} now" for name in names]
    return texts + [f"{each.name}: a table" for each in TABLES if before[each.name] != after[each.name]]


def _fqvae(*words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fqvae", *words],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise ValueError(f"fqvae {' '.join(words)}: status {done.returncode}\n{done.stderr[-2000:]}")
