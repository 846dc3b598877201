"""What is done for a run of a sweep: the commands that train and evaluate it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from fqvae.sweep.plan import Job, clear_leftovers, evaluate_words, steps_missing, train_words

if TYPE_CHECKING:
    from fqvae.evaluation.options import Options

# What the command does, as a participle, and the command.
Stage: TypeAlias = "tuple[str, list[str]]"


@dataclass(frozen=True)
class Work:
    """How the runs of a sweep are trained and evaluated.

    evaluate: options of the evaluation. device: of both. threads: of a run; None: as many as it likes.
    """

    evaluate: Options
    device: str = "auto"
    threads: int | None = None

    def stages(self, job: Job) -> Iterator[Stage]:
        """The commands that are left to do for a run; each is asked for after the one before has succeeded.

        Raises ValueError, OSError if the run cannot go on. Among them is a training that ended without an
        error before its last step: it is not evaluated.
        """
        child = [sys.executable, "-m", "fqvae.sweep.child"]
        device = ["--device", self.device]
        jobs = [] if self.threads is None else ["--jobs", str(self.threads)]
        clear_leftovers(job)
        if words := train_words(job):
            yield "training", [*child, *words, *device]
            if missing := steps_missing(job):
                raise ValueError(f"training ended early: {missing}")
        yield "evaluating", [*child, *evaluate_words(job, self.evaluate), *jobs, *device]
