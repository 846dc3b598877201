"""What a sweep tells while it runs, on standard error."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from typing import Any

from fqvae.sweep.plan import Job, steps_logged


class Progress:
    """A line for every run that has ended; on a terminal also a bar over them and a line for each at work.

    jobs: how many there are. lines: how many at a time.
    """

    def __init__(self, jobs: int, lines: int) -> None:
        self._bars: list[Any] = []
        if sys.stderr.isatty():
            from tqdm import tqdm

            overall = "{desc}: {n_fmt} of {total_fmt} |{bar}| {elapsed}"
            self._bars = [tqdm(total=jobs, desc="runs", bar_format=overall, file=sys.stderr, leave=False)]
            self._bars += [
                tqdm(bar_format="{desc}", position=1 + line, file=sys.stderr, leave=False)
                for line in range(lines)
            ]

    def show(self, running: Sequence[tuple[Job, str, float]]) -> None:
        """The runs at work: what each does, and since how many seconds."""
        for line, bar in enumerate(self._bars[1:]):
            text = ""
            if line < len(running):
                job, doing, seconds = running[line]
                text = _line(job, f"{doing}, {_steps(job)}" if doing == "training" else doing, seconds)
            # A line that wraps would leave its rest behind.
            bar.set_description_str(text[: shutil.get_terminal_size().columns - 1])
        for bar in self._bars[:1]:
            bar.refresh()

    def ended(self, job: Job, failure: str | None, seconds: float) -> None:
        """A run is trained and evaluated, or has failed."""
        state = f"{_steps(job)}, evaluated" if failure is None else f"failed: {failure}"
        self.note(_line(job, state, seconds))
        for bar in self._bars[:1]:
            bar.update()

    def note(self, line: str) -> None:
        """Print a line above the bars."""
        if self._bars:
            self._bars[0].write(line, file=sys.stderr)
        else:
            print(line, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Take the bars away."""
        for bar in reversed(self._bars):
            bar.close()


def _line(job: Job, state: str, seconds: float) -> str:
    return f"{job.title}: {state}, {seconds / 60:.1f} min"


def _steps(job: Job) -> str:
    return f"step {steps_logged(job):,} of {job.config.steps:,}"
