"""Work that two processes do together over gloo, and what it returns on each."""

import faulthandler
import gc
import multiprocessing
import os
import sys
import time
import traceback

import pytest
import torch
from torch import distributed

RANKS = 2
SECONDS = 300
needs_ranks = pytest.mark.skipif(
    not distributed.is_available() or not distributed.is_gloo_available(),
    reason="needs torch.distributed and gloo",
)


def on_ranks(tmp_path, work, *arguments):
    """What work(rank, *arguments) returns on each rank. A rank that fails or dies fails the test."""
    context = multiprocessing.get_context("spawn")
    place, pipes, processes = tmp_path / "meeting", [], []
    for rank in range(RANKS):
        receives, sends = context.Pipe(duplex=False)
        process = context.Process(target=_start, args=(rank, work, arguments, place, sends))
        process.start()
        sends.close()  # so that the pipe ends with the process
        pipes.append(receives)
        processes.append(process)
    deadline = time.monotonic() + SECONDS
    found = [_receive(pipe, deadline) for pipe in pipes]
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
        if process.is_alive():
            process.kill()
            process.join()
    problems = [problem for _, problem in found if problem is not None]
    assert not problems, "\n".join(problems)
    assert [process.exitcode for process in processes] == [0] * RANKS
    return [value for value, _ in found]


def each_on_ranks(tmp_path, works):
    """What each of several (work, *arguments) returns on both ranks, by work, from one pair of processes."""
    both = on_ranks(tmp_path, _every, works)
    return {work: results for (work, *_), results in zip(works, zip(*both, strict=True), strict=True)}


def _every(rank, works):
    return [work(rank, *arguments) for work, *arguments in works]


def _receive(pipe, deadline):
    """The value and the problem that a rank sends, as soon as it does: a full pipe would hold it up."""
    try:
        if pipe.poll(max(0.0, deadline - time.monotonic())):
            return pipe.recv()
    except EOFError:
        return None, "a rank died before it gave a result"
    return None, f"a rank gave no result within {SECONDS} seconds"


def _start(rank, work, arguments, place, sends):
    faulthandler.enable()  # a rank that aborts says where
    status = 0
    try:
        torch.set_num_threads(1)
        distributed.init_process_group("gloo", init_method=f"file://{place}", rank=rank, world_size=RANKS)
        sends.send((work(rank, *arguments), None))
        distributed.barrier()
        gc.collect()  # models that are wrapped hold the group, in cycles: they go before it
        distributed.destroy_process_group()
    except Exception:
        status = 1
        traceback.print_exc()
        sends.send((None, traceback.format_exc()))
    sys.stdout.flush()
    sys.stderr.flush()
    # As a forked process ends, not by finalising the interpreter. What still holds the group, such as a mesh
    # of devices, keeps gloo's threads alive: one that lets go of a tensor during finalisation asks for the
    # interpreter's lock, and the process aborts.
    os._exit(status)
