"""How the CUDA backend chooses and launches, in one place: choices seen or forced, kernels left out.

Everything here changes module attributes for a while. Where the backend is not as it expects, it raises
MismatchError, and the measurement that wanted it says so.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

from fqvae_kernels.backends import cuda
from fqvae_kernels.backends._cuda import geometry, plans


class MismatchError(RuntimeError):
    """The backend has changed under the sweep."""


@contextlib.contextmanager
def forced(lanes: int | None = None, blocks: int | None = None) -> Iterator[list[Any]]:
    """Within, passes take these lanes and blocks, where given. Yields the geometries that were taken."""
    seen: list[Any] = []
    with contextlib.ExitStack() as stack:
        # The pass that reads a table has a thread for each row.
        no_table = None if lanes is None else False
        for name, value in (("choose_lanes", lanes), ("_blocks", blocks), ("tabulates", no_table)):
            if value is not None:
                if not hasattr(geometry, name):
                    raise MismatchError(f"geometry.py has no function {name} to replace")
                stack.enter_context(mock.patch.object(geometry, name, lambda *_, value=value, **__: value))
        for name in ("forward", "backward"):
            stack.enter_context(mock.patch.object(geometry, name, _watched(getattr(geometry, name), seen)))
        _forget()
        stack.callback(_forget)
        yield seen
    for got in seen:
        if lanes not in (None, got.lanes) or blocks not in (None, got.blocks):
            raise MismatchError(f"asked for lanes {lanes} and blocks {blocks}, got {got}")


def _watched(choose: Callable[..., Any], seen: list[Any]) -> Callable[..., Any]:
    def watched(*values: Any, **named: Any) -> Any:
        chosen = choose(*values, **named)
        seen.append(chosen)
        return chosen

    return watched


def _forget() -> None:
    """Empties what the backend keeps of earlier calls, choices among them."""
    for module in (cuda, geometry, plans):
        for value in vars(module).values():
            if isinstance(value, functools._lru_cache_wrapper):
                value.cache_clear()


class _Some:
    """A launcher that starts the kernels that `wanted` names, and no others."""

    def __init__(self, launcher: Any, wanted: Callable[[str], bool]) -> None:
        self._launcher, self._wanted = launcher, wanted
        self.started: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._launcher, name)

    def launch(self, launch: Any, *values: Any) -> None:
        """Starts the kernel, or does nothing."""
        if self._wanted(launch.kernel):
            self.started.append(launch.kernel)
            self._launcher.launch(launch, *values)


@contextlib.contextmanager
def only(prefix: str) -> Iterator[None]:
    """Within, the CUDA backend starts the kernels alone whose names begin so."""
    some = _Some(cuda.launcher, lambda kernel: kernel.startswith(prefix))
    with mock.patch.object(cuda, "launcher", some):
        yield
    if not some.started:
        raise MismatchError(f"no kernel began with {prefix!r}")
