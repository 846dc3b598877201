"""metrics.csv, one row per log, kept when a run goes on; and Weights & Biases."""

from __future__ import annotations

import csv
import importlib
import io
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers import Logger

from fqvae.files import write_whole


class CsvFile(Logger):
    """Append metrics to a CSV file, whose columns are those of the first row.

    step: where the run goes on; rows of later steps, which a killed run may have left, are taken out.

    Raises ValueError for a file that is damaged; it is left as it is.
    """

    def __init__(self, path: Path, step: int = 0) -> None:
        super().__init__()
        self._path = path
        self._columns: list[str] = []
        self._cut(step)

    @property
    def name(self) -> str:
        """The file's name."""
        return self._path.name

    @property
    def version(self) -> int:
        """There is only one."""
        return 0

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """They are in config.yaml."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write a row."""
        row = {"step": step, **metrics}
        first = not self._columns
        self._columns = self._columns or list(row)
        with open(self._path, "a", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, self._columns, lineterminator="\n")
            if first:
                writer.writeheader()
            writer.writerow(row)

    @rank_zero_only
    def _cut(self, step: int) -> None:
        """Read the columns, and take out the rows after a step."""
        if not self._path.exists() or self._path.stat().st_size == 0:
            return
        try:
            with open(self._path, encoding="utf-8", newline="") as file:
                reader = csv.DictReader(file)
                self._columns = list(reader.fieldnames or [])
                if self._columns[:1] != ["step"]:
                    raise ValueError("its first column must be step")
                # A row that was cut short by a kill has empty columns.
                rows = [row for row in reader if None not in row.values() and int(row["step"]) <= step]
        except (ValueError, csv.Error) as error:
            raise ValueError(
                f"{self._path} is damaged ({error}); move it away to go on without it"
            ) from error
        if not self._columns:
            return
        text = io.StringIO()
        writer = csv.DictWriter(text, self._columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_whole(self._path, text.getvalue())


class WandbRun(Logger):
    """The metrics as a run of Weights & Biases, in the project "fqvae".

    Its files lie in the run's folder, its number in wandb-id.txt there, by which it goes on with the run.

    Args:
        folder: of the run; not touched before training begins.
        config: of the run, by flat keys.

    Raises:
        ValueError: the package wandb is not installed.
    """

    def __init__(self, folder: Path, config: Mapping[str, object]) -> None:
        super().__init__()
        try:
            self._wandb: Any = importlib.import_module("wandb")
        except ModuleNotFoundError as error:
            raise ValueError(
                f"the logger wandb needs the package wandb ({error}); pip install wandb"
            ) from error
        self._folder, self._config = folder, dict(config)
        self._run: Any = None

    @property
    def name(self) -> str:
        """The folder's name."""
        return self._folder.resolve().name

    @property
    def version(self) -> int:
        """There is only one."""
        return 0

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """They are given when the run begins."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Hand them on."""
        if self._run is None:
            file = self._folder / "wandb-id.txt"
            number = file.read_text(encoding="utf-8").strip() if file.exists() else uuid.uuid4().hex[:12]
            write_whole(file, f"{number}\n")
            self._run = self._wandb.init(
                project="fqvae",
                name=self.name,
                id=number,
                resume="allow",
                dir=str(self._folder),
                config=self._config,
            )
        self._run.log(dict(metrics), step=step)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """End the run; it may go on later."""
        if self._run is not None:
            self._run.finish(exit_code=0 if status == "success" else 1)
            self._run = None
