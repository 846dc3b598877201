"""A pytest plugin that says for each test which Triton programs it asked for, and which were in no cache.

    pytest -p gpu_check.pytest_programs ...

A program counts once in a process. With FQVAE_PRETEND_GPU=1 backend "triton" asks for them without a GPU, see
pretend.py; this module is imported before tests/conftest.py, which would have the kernels interpreted.
"""

from __future__ import annotations

import importlib.util

import pytest

from gpu_check.place import PRETENDED

_asked: list[str] = []
_compiled: list[str] = []


if PRETENDED:
    from gpu_check import pretend

    pretend.install()


def pytest_configure(config):
    if importlib.util.find_spec("triton") is not None:
        from gpu_check import programs

        programs.listen(_asked, _compiled)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if call.when == "call":
        if _asked:
            report.user_properties.append(("asked", _asked.copy()))
        if _compiled:
            report.user_properties.append(("compiled", _compiled.copy()))
        _asked.clear()
        _compiled.clear()
    return report
