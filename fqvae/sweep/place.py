"""Where the runs of a sweep are run: what `run_jobs` asks of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from fqvae.sweep.plan import Job


@dataclass(frozen=True)
class Result:
    """A run of a sweep that has ended. failure: why it is not trained and evaluated; None if it is."""

    job: Job
    failure: str | None


class Underway(Protocol):
    """A run that has begun."""

    @property
    def doing(self) -> str:
        """What it does now, as a participle."""

    def poll(self) -> Result | None:
        """How it ended; None while it is at work. It makes no progress unless it is asked now and then."""

    def interrupt(self) -> None:
        """Let it stop as on Ctrl-C: a training writes its checkpoint first."""

    def kill(self) -> None:
        """Let it stop at once."""


class Place(Protocol):
    """Processes of this machine, or a cluster."""

    def begin(self, job: Job) -> Underway:
        """Begin with a run. What is wrong with it is told by its result."""
