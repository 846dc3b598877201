"""sweep.yaml in the folder of a sweep: the sweep that is there, itself a sweep file."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from fqvae.files import write_whole
from fqvae.models.config import ConfigError
from fqvae.runs.config import differences
from fqvae.runs.presets import load_preset
from fqvae.sweep.file import RECORD, Sweep, read_sweep


def write_record(sweep: Sweep, out: Path) -> None:
    """Record a sweep in its folder. Raises OSError."""
    import yaml

    content = {
        "preset": sweep.preset,
        "seeds": list(sweep.seeds),
        "evaluate": asdict(sweep.evaluate),
        "runs": {
            name: {"model": entry.model, **dict(word.split("=", 1) for word in entry.settings)}
            for name, entry in sweep.runs.items()
        },
    }
    write_whole(out / RECORD, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))


def check_record(sweep: Sweep, out: Path) -> None:
    """Check that a sweep goes on with the one that was recorded in the folder, if any was.

    It must have all of its runs, with the same configurations, and all of its seeds. It may have more of
    both, and other options of the evaluation.

    Raises:
        ConfigError: it is another sweep; the message says in what. OSError: the record cannot be read.
    """
    if not (out / RECORD).exists():
        return
    recorded, problems = read_sweep(out / RECORD), []
    if missing := [str(seed) for seed in recorded.seeds if seed not in sweep.seeds]:
        problems.append(f"seed {', '.join(missing)} is there and not here")
    for name, entry in recorded.runs.items():
        if name not in sweep.runs:
            problems.append(f"the run {name!r} is there and not here")
            continue
        now = sweep.runs[name]
        there = load_preset(recorded.preset, entry.model, entry.settings)
        here = load_preset(sweep.preset, now.model, now.settings)
        problems += [each for each in differences(here, there) if each not in problems]
    if problems:
        raise ConfigError(f"{out} holds another sweep: {'; '.join(problems)}; take another --out")
