"""Runs as tasks of a Ray cluster, whose nodes share the folders of the runs."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from fqvae.models.config import ConfigError
from fqvae.packages import missing
from fqvae.runs.names import PICTURE
from fqvae.sweep.local import Local
from fqvae.sweep.place import Result
from fqvae.sweep.plan import Job
from fqvae.sweep.runner import PAUSE
from fqvae.sweep.work import Work

LOCAL = "local"  # instead of an address: a cluster of this machine alone, which ends with the sweep
_RETRIES = 20  # of a run whose node has died


class Cluster:
    """A task for each run. Ray decides on which node it runs, and gives it to another one if that dies.

    There the task looks into the run's folder, and goes on from the checkpoint.

    work: what is done for a run. cpus, gpus: that a run takes up.
    """

    def __init__(self, work: Work, cpus: float, gpus: float) -> None:
        import ray

        # run_on_node is found on the nodes by its name: they must have this package.
        task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=_RETRIES)
        self._task, self._work = task(run_on_node), work

    def begin(self, job: Job) -> Task:
        """Hand a run to Ray, which lets it wait until a node has room."""
        return Task(job, self._task.remote(job, self._work))


class Task:
    """A run that Ray has."""

    def __init__(self, job: Job, reference: Any) -> None:
        self._job, self._reference = job, reference

    @property
    def doing(self) -> str:
        """Told from the files that are there."""
        if not self._job.log.exists():
            return "waiting"
        return "evaluating" if (self._job.folder / PICTURE).exists() else "training"

    def poll(self) -> Result | None:
        """Ask Ray."""
        import ray

        if not ray.wait([self._reference], timeout=0)[0]:
            return None
        try:
            failure: str | None = ray.get(self._reference)
        except ray.exceptions.RayError as error:
            failure = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
        return Result(self._job, failure)

    def interrupt(self) -> None:
        """Raise KeyboardInterrupt in the task, which interrupts its process; one that waits never begins."""
        import ray

        ray.cancel(self._reference, force=False)

    def kill(self) -> None:
        """End the worker; the process it has started sees that, and has a minute to stop."""
        import ray

        ray.cancel(self._reference, force=True)


def run_on_node(job: Job, work: Work) -> str | None:
    """Train and evaluate a run on the node where this is called; why that failed, if it did."""
    processes = Local(work.stages, work.threads, print).begin(job)
    # A node that was started in the background of a shell ignores SIGINT, and with it Ray's way to cancel.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        while (result := processes.poll()) is None:
            time.sleep(PAUSE)
    except BaseException:  # KeyboardInterrupt above all, which is how Ray cancels
        processes.interrupt()
        while processes.poll() is None:
            time.sleep(PAUSE)
        raise
    finally:
        signal.signal(signal.SIGINT, before)
    return result.failure


@contextlib.contextmanager
def connected(address: str, cpus: float, gpus: float, note: Callable[[str], None]) -> Iterator[None]:
    """Be connected with a Ray cluster, or with a new one of this machine ("local").

    note: is told if no node is as large as a run needs, so that Ray may let all of them wait.

    Raises ConfigError if Ray is not installed, ConnectionError if there is no cluster at the address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ModuleNotFoundError as error:
        raise ConfigError(f"--ray: {missing('ray')}") from error
    options: dict[str, Any] = {}
    if address == LOCAL:
        options["include_dashboard"] = False
        if sys.platform == "linux":
            # Not reached from other machines. Ray would replace 127.0.0.1 by the address of the network.
            options["_node_ip_address"] = "127.0.0.2"
    ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **options)
    try:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if not any(node.get("CPU", 0) >= cpus and node.get("GPU", 0) >= gpus for node in nodes):
            note(f"no node of the cluster has {cpus:g} CPUs and {gpus:g} GPUs: runs wait until one has")
        yield
    finally:
        ray.shutdown()
