"""Signals that ask a process to end: it ends with one line and the exit status 128 + signal."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import Any, TypeAlias

Handler: TypeAlias = Callable[[int, FrameType | None], Any]

# Besides SIGINT, which is Ctrl-C. Windows has no SIGHUP.
ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


class Terminated(BaseException):
    """The process is asked to end by one of `ENDING`. number: of the signal.

    No Exception, like KeyboardInterrupt: what handles errors lets it pass.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"ended by {signal.Signals(number).name}")
        self.number = number


def status_of(number: int) -> int:
    """The exit status of a process that a signal has ended, as shells give it."""
    return 128 + number


def listen(numbers: Iterable[int], handler: Handler) -> dict[int, Any]:
    """Install a handler; returns the handlers before it, for `restore`.

    Nothing is done outside the main thread, and a signal of `ENDING` that is ignored (as by nohup) stays so.
    """
    if threading.current_thread() is not threading.main_thread():
        return {}
    before = {}
    for number in numbers:
        if number not in ENDING or signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, handler)
    return before


def restore(before: dict[int, Any]) -> None:
    """Install the handlers that `listen` has replaced."""
    for number, handler in before.items():
        signal.signal(number, signal.SIG_DFL if handler is None else handler)


@contextlib.contextmanager
def handlers_restored() -> Iterator[None]:
    """Inside, the handlers of SIGINT and of `ENDING` may be replaced; afterwards they are as before."""
    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, *ENDING) if main}
    try:
        yield
    finally:
        restore(before)


@contextlib.contextmanager
def raising_terminated() -> Iterator[None]:
    """Inside, the signals of `ENDING` raise `Terminated` in the main thread."""

    def end(number: int, frame: FrameType | None) -> None:
        raise Terminated(number)

    before = listen(ENDING, end)
    try:
        yield
    finally:
        restore(before)
