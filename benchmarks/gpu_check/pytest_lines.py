"""A pytest plugin that writes one JSON line for each test as soon as it has ended, under pytest-xdist too.

    pytest -p gpu_check.pytest_lines --lines FILE [--of-backend NAME]

--of-backend leaves out tests whose parameter `backend` is another. A process whose GPU an error has made
useless ends after that test; pytest-xdist starts another one.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from gpu_check import place
from gpu_check.results import Lines

LONGEST_TEXT = 2000


def pytest_addoption(parser):
    group = parser.getgroup("gpu_check")
    group.addoption("--lines", help="a file that gets a JSON line for each test")
    group.addoption("--of-backend", help="no tests of another backend")


def pytest_configure(config):
    # The controlling process alone writes; it hears of every test.
    if config.getoption("--lines") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Writer(Path(config.getoption("--lines"))), "gpu_check_lines")
    if hasattr(config, "workerinput"):
        config.pluginmanager.register(Ending(), "gpu_check_ending")


def pytest_collection_modifyitems(config, items):
    name = config.getoption("--of-backend")
    if name is None:
        return
    kept, left = [], []
    for item in items:
        callspec = getattr(item, "callspec", None)
        theirs = name if callspec is None else callspec.params.get("backend", name)
        (kept if theirs == name else left).append(item)
    config.hook.pytest_deselected(items=left)
    items[:] = kept


class Writer:
    """Turns reports into lines: one for a test, from its call, or from the phase in which it went wrong."""

    def __init__(self, path: Path) -> None:
        self._lines = Lines(path)

    def pytest_runtest_logreport(self, report):
        if (report.when == "setup" and report.passed) or (report.when == "teardown" and not report.failed):
            return
        line = {"test": report.nodeid, "outcome": report.outcome, "seconds": round(report.duration, 3)}
        if report.when != "call":
            line["when"] = report.when
        if not report.passed:
            line["text"] = short_text(report)
        self._lines.write(**line, **dict(report.user_properties))

    def pytest_collectreport(self, report):
        if report.failed:
            self._lines.write(test=report.nodeid or "collection", outcome="failed", text=short_text(report))


def short_text(report) -> str:
    """The lines that pytest marks with E, or the end of the text."""
    if report.skipped and isinstance(report.longrepr, tuple):
        return str(report.longrepr[-1])
    text = str(report.longrepr)
    marked = "\n".join(line[1:].strip() for line in text.splitlines() if line.startswith("E "))
    return marked[:LONGEST_TEXT] if marked else text[-LONGEST_TEXT:]


class Ending:
    """In a process of pytest-xdist: ends it after a test that has failed and left the device useless."""

    def __init__(self) -> None:
        self.failed = False

    def pytest_runtest_logreport(self, report):
        self.failed |= report.failed

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logfinish(self):
        if self.failed and place.device_is_broken():
            sys.stderr.write("The device is of no more use to this process, which ends.\n")
            os._exit(1)
        self.failed = False
