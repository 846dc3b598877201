"""Independent tasks in processes, with a progress bar."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import joblib  # type: ignore[import-untyped]
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from fqvae.metrics._arrays import check_count
from fqvae.packages import missing

Result = TypeVar("Result")


def in_processes(
    function: Callable[..., Result],
    tasks: Sequence[tuple[Any, ...]],
    *,
    jobs: int | None,
    progress: bool,
    title: str,
) -> list[Result]:
    """function(*task) of every task, in the tasks' order, each on one thread.

    Args:
        function: of a module, not of another function: the processes import it.
        jobs: the number of processes; None: of cores. 1: no process is started.
        progress: show a bar, titled so, on standard error; needs tqdm.

    Raises:
        TypeError, ValueError: jobs.
        ModuleNotFoundError: progress without tqdm.
        Whatever function raises.
    """
    if jobs is not None:
        check_count("jobs", jobs, 1)
    jobs = min(jobs or joblib.cpu_count(), max(len(tasks), 1))
    numbered: Iterable[tuple[int, Result]]
    if jobs == 1:
        numbered = (_numbered(function, number, task) for number, task in enumerate(tasks))
    else:
        numbered = joblib.Parallel(n_jobs=jobs, return_as="generator_unordered")(
            joblib.delayed(_numbered)(function, number, task) for number, task in enumerate(tasks)
        )
    if progress:
        numbered = _progress_bar()(numbered, total=len(tasks), desc=title)
    return [result for _, result in sorted(numbered, key=lambda pair: pair[0])]


def _numbered(function: Callable[..., Result], number: int, task: tuple[Any, ...]) -> tuple[int, Result]:
    # A core for each process: threads on top would wait for each other.
    with threadpool_limits(limits=1):
        return number, function(*task)


def _progress_bar() -> Any:
    try:
        return importlib.import_module("tqdm").tqdm
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"progress=True: {missing('tqdm')}", name="tqdm") from error
