"""metrics.json and its tables: an evaluation, written and read."""

from __future__ import annotations

import csv
import io
import json
import math
import platform
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import sklearn  # type: ignore[import-untyped]
import torch
from numpy.typing import NDArray

import fqvae
from fqvae.data import has_full_grid
from fqvae.evaluation.inputs import present
from fqvae.evaluation.measures import MEASURES, TABLES, applicable
from fqvae.evaluation.measuring import Evaluation
from fqvae.files import write_together
from fqvae.runs import Run, to_flat
from fqvae.runs.data import describe, digest_of_labels
from fqvae.runs.names import EVALUATION

FORMAT = 2

# What a file must have, besides measures and tables.
_KEYS: dict[str, tuple[str, ...]] = {
    "config": (
        *("seed", "steps", "model.latent.size", "model.latent.codebook_size"),
        *("model.latent.kind", "model.latent.estimator"),
    ),
    "checkpoint": ("sha256", "step"),
    "data": ("name", "size", "factor_names", "factor_sizes", "grid", "available"),
    "options": ("train", "test", "seed", "classifier", "order", "protocol"),
    "measures": (),
    "tables": (),
    "cautions": (),
    "seconds": (),
}


def contents(run: Run, evaluation: Evaluation) -> dict[str, Any]:
    """An evaluation as `read_evaluation` gives it."""
    return complete(_stored(run, evaluation))


def _stored(run: Run, evaluation: Evaluation) -> dict[str, Any]:
    """What metrics.json holds."""
    dataset = run.dataset
    return {
        "format": FORMAT,
        "versions": {
            "fqvae": fqvae.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
            "scikit-learn": sklearn.__version__,
        },
        "model": run.config.model.name,
        "config": to_flat(run.config),
        "checkpoint": {"file": run.checkpoint.name, "sha256": run.sha256, "step": run.step},
        "data": {
            "name": dataset.name,
            "size": dataset.image_shape[1],
            "factor_names": list(dataset.factor_names),
            "factor_sizes": list(dataset.factor_sizes),
            "grid": has_full_grid(dataset),
            "available": evaluation.available,
            "images": describe(dataset)["digest"],
            "labels": digest_of_labels(dataset),
        },
        "options": asdict(evaluation.options),
        "measures": {
            each.name: {"value": evaluation.scores[each.name], "version": each.version}
            for each in MEASURES
            if each.name in evaluation.scores
        },
        "tables": {
            each.name: {"value": evaluation.tables[each.name].tolist(), "version": each.version}
            for each in TABLES
            if each.name in evaluation.tables
        },
        "cautions": evaluation.cautions,
        "seconds": evaluation.seconds,
    }


def write_evaluation(run: Run, evaluation: Evaluation, folder: str | Path | None = None) -> None:
    """Write metrics.json and, with labels, importance.csv and nmi.csv: all that `read_evaluation` gives.

    folder: by default the run's. Raises OSError if they cannot be written; what was there is kept.
    """
    folder = run.folder if folder is None else Path(folder)
    lines = ",\n".join(
        f"{json.dumps(key)}: {json.dumps(value, allow_nan=False)}"
        for key, value in _stored(run, evaluation).items()
    )
    files: dict[Path, str] = {}
    names, tables = run.dataset.factor_names, evaluation.tables
    latents = list(range(run.config.model.latent.size))
    if "importance" in tables:
        files[folder / "importance.csv"] = _csv("latent", names, latents, tables["importance"])
    if "nmi" in tables:
        files[folder / "nmi.csv"] = _csv("factor", latents, names, tables["nmi"])
    files[folder / EVALUATION] = f"{{\n{lines}\n}}\n"
    write_together(files)


def read_evaluation(folder: str | Path) -> dict[str, Any]:
    """What `write_evaluation` wrote in metrics.json, of a run's folder.

    Keys: format; versions; model; config, flat; checkpoint: file, sha256, step; data: name, size,
    factor_names, factor_sizes, grid, available (images to measure on), images and labels (digests; not in old
    files); options; cautions, sentences by measure; seconds. scores: the values of measures by name, of those
    alone whose version is this program's. Likewise the tables as lists, each under its name, None where the
    run has none: importance (M, F), nmi (F, M), nmi_latents (M, M), usage (M, K), perplexity (M,), codes_used
    (M,). missing: the names of the measures and tables that apply to the run and are old or not there.

    Raises FileNotFoundError; ValueError for a file that is damaged or of another format.
    """
    path = Path(folder) / EVALUATION
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}; fqvae evaluate {folder} writes it")
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {error}; fqvae evaluate {folder} writes it anew") from error
    if not isinstance(content, dict) or "format" not in content:
        raise ValueError(f"{path} was not written by fqvae evaluate")
    if content["format"] != FORMAT:
        raise ValueError(
            f"{path} has the format {content['format']!r}, but this version reads {FORMAT}; "
            f"fqvae evaluate {folder} writes it anew"
        )
    problem = _problem(content)
    if problem is None:
        content = complete(content)
        problem = _wrong_value(content)
    if problem is not None:
        raise ValueError(f"{path} is damaged: {problem}; fqvae evaluate {folder} writes it anew")
    checked: dict[str, Any] = content
    return checked


def find_evaluation(folder: Path, sha256: str) -> tuple[dict[str, Any] | None, str]:
    """What `fqvae evaluate` has found about a checkpoint; or None, and why there is nothing.

    folder: where the evaluation is. sha256: of the checkpoint.
    """
    try:
        content = read_evaluation(folder)
    except (FileNotFoundError, ValueError) as error:
        return None, str(error)
    if content["checkpoint"]["sha256"] != sha256:
        step = content["checkpoint"]["step"]
        return None, (
            f"{folder / EVALUATION} is of another checkpoint, of step {step:,}; "
            f"fqvae evaluate {folder} writes it anew"
        )
    return content, ""


def complete(content: dict[str, Any]) -> dict[str, Any]:
    """The same with scores, tables under their names, and what is missing; old values are left out."""
    measures, tables = applicable(_present(content))
    current = [each for each in measures if _is_current(content["measures"], each.name, each.version)]
    arrays = [each for each in tables if _is_current(content["tables"], each.name, each.version)]
    missing = [each.name for each in measures if each not in current]
    missing += [each.name for each in tables if each not in arrays]
    found = {each.name: content["tables"][each.name]["value"] for each in arrays}
    return {
        **content,
        **{each.name: found.get(each.name) for each in TABLES},
        "scores": {each.name: content["measures"][each.name]["value"] for each in current},
        "tables": found,
        "missing": list(dict.fromkeys(missing)),
    }


def _present(content: dict[str, Any]) -> frozenset[str]:
    data = content["data"]
    return present(content["config"], bool(data["factor_names"]), bool(data["grid"]))


def _is_current(values: dict[str, Any], name: str, version: int) -> bool:
    return name in values and values[name]["version"] == version


def _problem(content: dict[str, Any]) -> str | None:
    """What is wrong with the form of a file, if anything."""
    if not isinstance(content.get("model"), str):
        return "model is missing"
    for part, keys in _KEYS.items():
        if not isinstance(content.get(part), dict):
            return f"{part} is missing"
        for key in keys:
            if key not in content[part]:
                return f"{part} has no {key}"
    names, sizes = content["data"]["factor_names"], content["data"]["factor_sizes"]
    if not (isinstance(names, list) and isinstance(sizes, list) and len(names) == len(sizes)):
        return "data.factor_names and data.factor_sizes are not lists of one length"
    if not all(isinstance(each, str) for each in content["cautions"].values()):
        return "a caution is no text"
    for part in ("measures", "tables"):
        for name, entry in content[part].items():
            if not isinstance(entry, dict) or not {"value", "version"} <= set(entry):
                return f"{part}.{name} has no value or no version"
    return None


def _wrong_value(content: dict[str, Any]) -> str | None:
    """What is wrong with the current measures and tables, if anything."""
    for name, score in content["scores"].items():
        if not isinstance(score, float) or not math.isfinite(score):
            return f"the measure {name} is {score!r}"
    config = content["config"]
    sizes = {
        "M": config["model.latent.size"],
        "F": len(content["data"]["factor_names"]),
        "K": config["model.latent.codebook_size"],
    }
    for table in TABLES:
        if table.name not in content["tables"]:
            continue
        shape = tuple(sizes[letter] for letter in table.shape)
        try:
            found = np.array(content["tables"][table.name], dtype=np.float64)
        except (TypeError, ValueError):
            return f"{table.name} is not a table of numbers"
        if found.shape != shape or not np.isfinite(found).all():
            what = f"has the shape {found.shape}, not {shape}" if found.shape != shape else "is not finite"
            return f"{table.name} {what}"
    return None


def _csv(corner: str, columns: Sequence[object], rows: Sequence[object], matrix: NDArray[Any]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([corner, *columns])
    writer.writerows([row, *values] for row, values in zip(rows, matrix.tolist(), strict=True))
    return text.getvalue()
