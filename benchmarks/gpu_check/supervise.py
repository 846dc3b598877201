"""Runs a list of cases in child processes, so that one that crashes or hangs costs itself alone.

The child says over a pipe which case it begins and what came of it. Where it dies, hangs, or finds that the
device is of no more use to it, another child goes on with the case behind.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from gpu_check.processes import die_with_parent, environment
from gpu_check.stages import START_PATIENCE

BROKEN = 3  # the exit status of a child whose device is of no more use

Write = Callable[..., None]


def supervise(
    module: str,
    backend: str,
    write: Write,
    patience: float,
    shard: int = 0,
    shards: int = 1,
    **variables: str,
) -> None:
    """Writes a line for each case of `module.cases(backend)` whose number is `shard` modulo `shards`."""
    first: int | None = shard
    while first is not None:
        command = [module, backend, str(first), str(shards)]
        first = _one_child(command, {"backend": backend}, write, patience, variables, shards)


def share_out(
    module: str, backends: Iterable[str], write: Write, patience: float, shards: int, **variables: str
) -> None:
    """`supervise` for so many shards of each backend at once, whose lines mix."""
    threads = [
        threading.Thread(
            target=supervise,
            args=(module, backend, write, patience, shard, shards),
            kwargs=variables,
        )
        for backend in backends
        for shard in range(shards)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _one_child(
    command: list[str],
    about: dict[str, Any],
    write: Write,
    patience: float,
    variables: dict[str, str],
    step: int,
) -> int | None:
    """The number of the case that another child begins with, or None at the end."""
    reading, writing = os.pipe()
    child = subprocess.Popen(
        [sys.executable, "-m", "gpu_check.worker", str(writing), *command],
        pass_fds=(writing,),
        preexec_fn=die_with_parent,
        env=environment(**variables),
    )
    os.close(writing)
    begun: dict[str, Any] = {}
    last, silent = None, False
    with os.fdopen(reading, "rb", buffering=0) as pipe:
        for message in _messages(pipe.fileno(), patience):
            if message is None:
                silent = True
                break
            if "begin" in message:
                begun = message
            else:
                last = message.pop("number")
                write(**about, **message)
    if silent:
        child.kill()
    code = child.wait()
    if not begun:
        if code != 0:
            write(**about, ok=False, error=f"no case could begin: exit status {code}")
        return None
    number = begun["begin"]
    if last != number:
        reason = f"no answer in {patience:.0f} s" if silent else f"its process died: exit status {code}"
        write(**about, **begun["about"], ok=False, error=reason)
        return number + step
    return number + step if silent or code != 0 else None


def _messages(descriptor: int, patience: float) -> Iterator[dict[str, Any] | None]:
    """The child's messages; None once it has been silent for too long. The first one may take longer."""
    buffer = b""
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        until = time.monotonic() + max(patience, START_PATIENCE)
        while True:
            if not selector.select(max(0.0, until - time.monotonic())):
                yield None
                return
            data = os.read(descriptor, 65536)
            if not data:
                return
            *whole, buffer = (buffer + data).split(b"\n")
            for line in whole:
                yield json.loads(line)
            until = time.monotonic() + patience
