"""The file of results: losses by run, times by case, and the machine of the times.

    {"losses": {"CASE/KIND/SEED": {...}}, "times": {"CASE": {"KIND": {...}}}, "machine": {...}}

Two processes may add to it at the same time: each reads what is there before it writes the whole anew.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fqvae.files import lock, write_whole


class Results:
    """What a file of results holds; nothing where there is no file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> dict[str, Any]:
        empty: dict[str, Any] = {"losses": {}, "times": {}, "machine": {}}
        return empty | (json.loads(self.path.read_text("utf-8")) if self.path.exists() else {})

    def runs(self, case: str, kind: str) -> dict[int, dict[str, float]]:
        """The losses of a case and kind, by seed."""
        found = {tuple(key.split("/")): value for key, value in self.read()["losses"].items()}
        return {int(key[2]): found[key] for key in sorted(found) if key[:2] == (case, kind)}

    def add_run(self, case: str, kind: str, seed: int, losses: dict[str, float]) -> None:
        self._change(lambda held: held["losses"].update({f"{case}/{kind}/{seed}": losses}))

    def remove_runs(self, case: str, kind: str, seeds: list[int]) -> None:
        def change(held: dict[str, Any]) -> None:
            for seed in seeds:
                held["losses"].pop(f"{case}/{kind}/{seed}", None)

        self._change(change)

    def add_times(self, case: str, times: dict[str, dict[str, float]], machine: dict[str, str]) -> None:
        """Times of a case. Those of another machine, or of other versions, go."""

        def change(held: dict[str, Any]) -> None:
            if held["machine"] != machine:
                held["times"], held["machine"] = {}, machine
            held["times"][case] = times

        self._change(change)

    def _change(self, change: Callable[[dict[str, Any]], object]) -> None:
        with self._locked():
            held = self.read()
            change(held)
            held["losses"] = dict(sorted(held["losses"].items()))
            write_whole(self.path, json.dumps(held, indent=1) + "\n")

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the lock of the file's folder."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            lock(folder, wait=True)
            yield
        finally:
            os.close(folder)
