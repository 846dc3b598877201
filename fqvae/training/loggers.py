"""metrics.csv: one row per log, kept when a run goes on."""

from __future__ import annotations

import csv
import io
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
