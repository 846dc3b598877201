"""Runs as processes of this machine."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from collections.abc import Callable, Iterator
from typing import BinaryIO, TypeAlias

from fqvae.files import lock
from fqvae.sweep.place import Result
from fqvae.sweep.plan import Job
from fqvae.sweep.work import Stage

# The next stage is asked for when one has ended well. A ValueError or OSError is a failure of the job.
Stages: TypeAlias = Callable[[Job], Iterator[Stage]]


class Local:
    """A process for each stage of a run.

    stages: of a job. threads: OMP_NUM_THREADS of the processes, if the environment does not have it; None:
    not set. note: is told what a person should know.
    """

    def __init__(self, stages: Stages, threads: int | None, note: Callable[[str], None]) -> None:
        self._stages, self._note = stages, note
        self._environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        if threads is not None:
            self._environment.setdefault("OMP_NUM_THREADS", str(threads))

    def begin(self, job: Job) -> Processes:
        """The run; its first process is started when it is asked how it is."""
        return Processes(job, self._stages(job), self._environment, self._note)


class Processes:
    """A run under way: its stages, one process after the other, which print to the job's log."""

    def __init__(
        self, job: Job, stages: Iterator[Stage], environment: dict[str, str], note: Callable[[str], None]
    ) -> None:
        self._job, self._stages, self._environment, self._note = job, stages, environment, note
        self.doing = ""
        self._log: BinaryIO | None = None
        self._locked = self._interrupted = False
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0  # of the present process

    def poll(self) -> Result | None:
        """Start the next process if there is none; the result, if there is nothing more to do."""
        if self._process is not None and self._process.poll() is None:
            return None
        try:
            result = self._next()
        except StopIteration:
            result = Result(self._job, None)
        except (ValueError, OSError) as error:
            result = Result(self._job, str(error))
        if result is not None:
            self._close()
        return result

    def interrupt(self) -> None:
        """Send SIGINT to the process, and start no other one."""
        self._interrupted = True
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        """Kill the process with those that it has started."""
        self._interrupted = True
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _next(self) -> Result | None:
        if self._interrupted:
            return Result(self._job, "interrupted")
        if not self._take_log():
            return None
        assert self._log is not None
        if self._process is not None:
            _let_go(self._process)
            if self._process.returncode != 0:
                return Result(self._job, self._last_words(self._process.returncode))
        self.doing, command = next(self._stages)
        self._log.write(f"$ {shlex.join(command)}\n".encode())
        self._log.flush()
        self._log_start = self._log.tell()
        # In a group of its own: Ctrl-C in a terminal reaches every process of a group, and a second one
        # means something else to a training.
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=self._log,
            env=self._environment,
            start_new_session=True,
        )
        return None

    def _take_log(self) -> bool:
        """Open and lock the log: a process that an earlier sweep has left still holds that lock."""
        if self._locked:
            return True
        if self._log is None:
            self._job.log.parent.mkdir(parents=True, exist_ok=True)
            self._log = open(self._job.log, "ab")  # noqa: SIM115, closed with the run
        self._locked = lock(self._log)
        if not self._locked and not self.doing:
            self.doing = "waiting"
            self._note(f"{self._job.title}: waiting for a process of an earlier sweep to end")
        return self._locked

    def _last_words(self, status: int) -> str:
        """The last line that the process has printed, or how it ended."""
        if status < 0:
            return f"{self.doing} was ended by {signal.Signals(-status).name}"
        with open(self._job.log, "rb") as file:
            file.seek(self._log_start)
            lines = file.read().decode(errors="replace").split("\n")
        # A progress bar goes back to the line's beginning.
        printed = [line.split("\r")[-1].strip() for line in lines if line.strip()]
        return printed[-1] if printed else f"{self.doing} ended with exit status {status}"

    def _close(self) -> None:
        if self._process is not None:
            _let_go(self._process)
        if self._log is not None:
            self._log.close()


def _let_go(process: subprocess.Popen[bytes]) -> None:
    """Close the pipe whose end tells a process that its parent has ended."""
    assert process.stdin is not None
    process.stdin.close()
