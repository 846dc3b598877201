"""The results of an experiment, as far as they are there."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fqvae.evaluation import read_evaluation
from fqvae.sweep import plan, read_sweep
from rayshapes_runs.derived import derived
from rayshapes_runs.store import Store


@dataclass
class Results:
    """Of an experiment.

    planned: the number of runs. scores: of measures, those of `derived` among them, by name of the run and
    seed, names in the sweep's order. configs: flat configurations by name. contents: of metrics.json, as the
    scores. by_index: as the scores, with codes by index, of those that have them. seeds: the number that each
    run is to have.
    """

    planned: int
    scores: dict[str, dict[int, dict[str, float]]] = field(default_factory=dict)
    configs: dict[str, dict[str, Any]] = field(default_factory=dict)
    contents: dict[str, dict[int, dict[str, Any]]] = field(default_factory=dict)
    by_index: dict[str, dict[int, dict[str, float]]] = field(default_factory=dict)
    seeds: int = 1

    @property
    def count(self) -> int:
        """The runs that are there."""
        return sum(map(len, self.scores.values()))

    def values(self, name: str, measure: str) -> dict[int, float]:
        """A measure by seed; without the seeds that lack it."""
        seeds = self.scores.get(name, {})
        return {seed: scores[measure] for seed, scores in seeds.items() if measure in scores}


def read_results(results: Path, experiment: str) -> Results:
    """The results of a sweep, by its name or file, in the folder of all of them.

    Raises:
        ConfigError: results of another configuration than the sweep's. ValueError, OSError: a damaged file.
    """
    sweep = read_sweep(experiment)
    store = Store(results / sweep.name)
    jobs = plan(sweep, store.folder)
    found = Results(len(jobs), seeds=len(sweep.seeds))
    for job in jobs:
        if store.has(job, sweep.evaluate):
            content = read_evaluation(store.place(job))
            other = store.by_index(job)
            if other is not None:
                found.by_index.setdefault(job.name, {})[job.seed] = other["scores"]
            content["scores"] |= derived(content, other)
            found.scores.setdefault(job.name, {})[job.seed] = content["scores"]
            found.contents.setdefault(job.name, {})[job.seed] = content
            found.configs[job.name] = content["config"]
    return found
