"""What is kept of the runs of an experiment: the measures, the configuration and thinned curves of each.

FOLDER/RUN/seed-N/metrics.json    as `fqvae evaluate` writes it
FOLDER/RUN/seed-N/config.yaml     which `fqvae train` takes
FOLDER/RUN/seed-N/metrics.csv     some thirty rows of the curves
FOLDER/RUN/seed-N/index/metrics.json    the measures with codes by index, where they are asked for
"""

from __future__ import annotations

import csv
import io
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fqvae.evaluation import Options, read_evaluation
from fqvae.files import Content, write_together
from fqvae.models.config import ConfigError
from fqvae.runs.config import differences, from_flat
from fqvae.runs.curves import read_columns
from fqvae.runs.names import CONFIG, CURVES, EVALUATION
from fqvae.runs.presets import load_file
from fqvae.sweep import Job

ROWS = 30  # of the curves


INDEX = "index"  # a folder, in that of a run


class Store:
    """The results of one experiment in a folder, which need not exist yet.

    by_index: whether runs of codes that have an order are also evaluated with codes by index.
    """

    def __init__(self, folder: Path, *, by_index: bool = False) -> None:
        self.folder, self._by_index = folder, by_index

    def wants_index(self, job: Job) -> bool:
        """Whether a run is to be evaluated with codes by index, too."""
        return self._by_index and job.config.model.latent.kind in ("scalar", "logits")

    def place(self, job: Job) -> Path:
        """The folder of a run's results."""
        return self.folder / job.name / f"seed-{job.seed}"

    def has(self, job: Job, options: Options) -> bool:
        """Whether a run's results are kept.

        Raises:
            ConfigError: they are of another configuration or evaluation; the message says what differs.
            ValueError, OSError: a damaged file.
        """
        place = self.place(job)
        if not (place / EVALUATION).exists():
            return False
        if self.wants_index(job) and not (place / INDEX / EVALUATION).exists():
            return False
        content = read_evaluation(place)
        problems = differences(job.config, load_file(place / CONFIG))
        # config.yaml by itself may have been edited.
        problems = problems or differences(job.config, from_flat(content["config"]))
        problems += _other_options(options, content)
        if content["checkpoint"]["step"] != job.config.steps:
            problems.append(f"it was evaluated at step {content['checkpoint']['step']}")
        if problems:
            raise ConfigError(
                f"{place} has the results of another run than {job.title}: {'; '.join(problems)}; "
                "remove its folder to train it anew"
            )
        return True

    def by_index(self, job: Job) -> dict[str, Any] | None:
        """What is kept of a run with codes by index, if anything.

        Raises ValueError, OSError: a damaged file, or one of another checkpoint than the run's.
        """
        folder = self.place(job) / INDEX
        if not (folder / EVALUATION).exists():
            return None
        content = read_evaluation(folder)
        if content["checkpoint"]["sha256"] != read_evaluation(self.place(job))["checkpoint"]["sha256"]:
            raise ValueError(f"{folder} is of another checkpoint than {self.place(job)}")
        return content

    def put(self, job: Job) -> None:
        """Keep the results of a run that is trained and evaluated. Raises ValueError, OSError."""
        self._write(job, job.folder, thinned(read_columns(job.folder / CURVES)))

    def copy(self, job: Job, options: Options) -> Path | None:
        """Keep what another experiment beside this one has of the same configuration and seed.

        Returns:
            Where that is; None if there is nothing of the kind.

        Raises:
            ValueError, OSError: a damaged file.
        """
        for file in sorted(self.folder.parent.glob(f"*/*/seed-{job.seed}/{EVALUATION}")):
            content = read_evaluation(file.parent)
            same = content["checkpoint"]["step"] == job.config.steps and options.same(content)
            complete = (file.parent / INDEX / EVALUATION).exists() or not self.wants_index(job)
            if same and complete and not differences(job.config, from_flat(content["config"])):
                self._write(job, file.parent, (file.parent / CURVES).read_text("utf-8"))
                return file.parent
        return None

    def _write(self, job: Job, folder: Path, curves: str) -> None:
        place = self.place(job)
        files: dict[Path, Content] = {
            place / CONFIG: (folder / CONFIG).read_bytes(),
            place / CURVES: curves,
            **({self.place(job) / INDEX / EVALUATION: _index(folder)} if self.wants_index(job) else {}),
            # The last one: where it is, the others are.
            place / EVALUATION: (folder / EVALUATION).read_bytes(),
        }
        write_together(files)


def _index(folder: Path) -> bytes:
    return (folder / INDEX / EVALUATION).read_bytes()


def thinned(columns: dict[str, list[float]]) -> str:
    """Curves as CSV: at most `ROWS` rows, evenly spaced, the first and the last among them; five digits."""
    count = len(next(iter(columns.values())))
    last = min(count, ROWS) - 1
    rows = [round(each * (count - 1) / last) for each in range(last + 1)] if last else [0]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([f"{column[row]:.5g}" for column in columns.values()] for row in rows)
    return text.getvalue()


def _other_options(options: Options, content: dict[str, Any]) -> list[str]:
    here = asdict(options.resolved(content["data"]["available"]))
    there = content["options"]
    return [
        f"evaluate.{key} is {there.get(key)!r} there and {value!r} here"
        for key, value in here.items()
        if there.get(key) != value
    ]
