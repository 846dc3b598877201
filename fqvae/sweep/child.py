"""`python -m fqvae.sweep.child COMMAND ...`: the command `fqvae`, for as long as the parent process lives.

The parent holds the other end of standard input. When that closes, which happens however the parent ends,
SIGKILL included, the command is interrupted as by Ctrl-C: a training writes its checkpoint and stops.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

from fqvae.cli import main

GRACE = 60.0  # seconds from the interrupt to the end


def _end_with_parent() -> None:
    # Not sys.stdin: its lock, held by this thread, would be a fatal error at the interpreter's end.
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(GRACE)
    if os.getpgrp() == os.getpid():  # with the processes that it has started
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def run() -> int:
    """The command of `sys.argv`; returns its exit status."""
    # Shells let commands in the background ignore SIGINT, and their children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(signal, "pthread_sigmask"):  # the workers of Ray block it, which is inherited too
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_end_with_parent, daemon=True).start()
    return main()


if __name__ == "__main__":
    sys.exit(run())
